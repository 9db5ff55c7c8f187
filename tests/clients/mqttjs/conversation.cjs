'use strict'
// What the MQTT.js scripts share: a connection, and one JSON object a line for each thing that was seen.

const mqtt = require('mqtt')

const LIMIT_MS = 20_000
const LEVELS = { '3.1': 3, '3.1.1': 4, 5: 5 }

function say(saw, what) {
  console.log(JSON.stringify({ saw, ...what }))
}

function fail(why) {
  console.error(why)
  process.exit(1)
}

/** Connects, says what CONNACK said, and calls `then`. Anything unexpected ends the process. */
function converse(address, version, clientId, options, then) {
  const [host, port] = address.split(':')
  const level = LEVELS[version]
  const protocolId = level === 3 ? 'MQIsdp' : 'MQTT'
  const client = mqtt.connect({
    host,
    port: Number(port),
    protocol: 'mqtt',
    protocolId,
    protocolVersion: level,
    clientId,
    clean: true,
    reconnectPeriod: 0,
    ...options,
  })
  const limit = setTimeout(() => fail('nothing more happened'), LIMIT_MS)
  client.on('error', (error) => fail(`error: ${error}`))
  client.on('disconnect', (packet) => fail(`DISCONNECT ${packet.reasonCode}`))
  client.once('connect', (connack) => {
    say('connack', { reason: connack.reasonCode ?? connack.returnCode, session_present: connack.sessionPresent })
    then(client)
  })
  client.end_with_word = () =>
    client.end(false, {}, () => {
      clearTimeout(limit)
      say('end', {})
    })
}

/** PUBLISH properties as a JSON object, under the names that Paho has for them. */
function asJson(properties) {
  const seen = {}
  const put = (name, value) => {
    if (value !== undefined) seen[name] = value
  }
  if (!properties) return seen
  if (properties.payloadFormatIndicator !== undefined) {
    put('PayloadFormatIndicator', Number(properties.payloadFormatIndicator))
  }
  put('MessageExpiryInterval', properties.messageExpiryInterval)
  put('ContentType', properties.contentType)
  put('ResponseTopic', properties.responseTopic)
  put('CorrelationData', properties.correlationData?.toString('base64'))
  put('SubscriptionIdentifier', properties.subscriptionIdentifier)
  if (properties.userProperties) {
    const pairs = Object.entries(properties.userProperties).flatMap(([name, values]) =>
      [].concat(values).map((value) => [name, value]),
    )
    put('UserProperty', pairs)
  }
  return seen
}

/** The other way. */
function fromJson(given) {
  const properties = {}
  if (given.PayloadFormatIndicator !== undefined) properties.payloadFormatIndicator = given.PayloadFormatIndicator === 1
  if (given.MessageExpiryInterval !== undefined) properties.messageExpiryInterval = given.MessageExpiryInterval
  if (given.ContentType !== undefined) properties.contentType = given.ContentType
  if (given.ResponseTopic !== undefined) properties.responseTopic = given.ResponseTopic
  if (given.CorrelationData !== undefined) properties.correlationData = Buffer.from(given.CorrelationData, 'base64')
  if (given.UserProperty !== undefined) {
    properties.userProperties = {}
    for (const [name, value] of given.UserProperty) (properties.userProperties[name] ??= []).push(value)
  }
  return properties
}

module.exports = { converse, say, fail, asJson, fromJson }
