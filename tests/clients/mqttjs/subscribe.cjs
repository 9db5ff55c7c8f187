'use strict'
// subscribe.cjs ADDRESS VERSION FILTER QOS COUNT: subscribes, takes COUNT messages, unsubscribes, disconnects.

const { converse, say, fail, asJson } = require('./conversation.cjs')

const [address, version, filter, qos, count] = process.argv.slice(2)
let left = Number(count)

converse(address, version, 'mqttjs-subscriber', {}, (client) => {
  client.on('message', (topic, payload, packet) => {
    say('message', {
      topic,
      payload: payload.toString('base64'),
      qos: packet.qos,
      retain: packet.retain,
      properties: asJson(packet.properties),
    })
    left -= 1
    if (left === 0) {
      client.unsubscribe(filter, (error) => {
        if (error) fail(`UNSUBACK: ${error}`)
        say('unsuback', {})
        client.end_with_word()
      })
    }
  })
  client.subscribe(filter, { qos: Number(qos) }, (error, granted) => {
    if (error) fail(`SUBACK: ${error}`)
    say('suback', { reasons: granted.map((each) => each.qos) })
  })
})
