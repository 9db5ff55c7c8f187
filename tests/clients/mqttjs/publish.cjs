'use strict'
// publish.cjs ADDRESS VERSION TOPIC QOS COUNT [PROPERTIES]: publishes the numbers below COUNT, disconnects.

const { converse, say, fail, fromJson } = require('./conversation.cjs')

// MQTT.js does not keep to the Receive Maximum of a server: the script must.
const WINDOW = 20

const [address, version, topic, qos, count, given] = process.argv.slice(2)
const options = { qos: Number(qos), ...(given && { properties: fromJson(JSON.parse(given)) }) }
let next = 0
let left = Number(count)

converse(address, version, 'mqttjs-publisher', {}, (client) => {
  const publish = () => {
    if (next === Number(count)) return
    const number = next
    next += 1
    client.publish(topic, String(number), options, (error, packet) => {
      if (error) fail(`PUBACK: ${error}`)
      say('published', { reason: packet?.reasonCode ?? 0 })
      left -= 1
      if (left === 0) client.end_with_word()
      else publish()
    })
  }
  for (let window = 0; window < WINDOW; window += 1) publish()
})
