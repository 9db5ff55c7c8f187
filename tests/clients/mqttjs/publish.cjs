'use strict'
// publish.cjs ADDRESS VERSION TOPIC QOS COUNT [PROPERTIES]: publishes the numbers below COUNT, disconnects.

const { converse, say, fail, fromJson } = require('./conversation.cjs')

const [address, version, topic, qos, count, given] = process.argv.slice(2)
const options = { qos: Number(qos), ...(given && { properties: fromJson(JSON.parse(given)) }) }
let left = Number(count)

converse(address, version, 'mqttjs-publisher', {}, (client) => {
  for (let number = 0; number < Number(count); number += 1) {
    client.publish(topic, String(number), options, (error, packet) => {
      if (error) fail(`PUBACK: ${error}`)
      say('published', { reason: packet?.reasonCode ?? 0 })
      left -= 1
      if (left === 0) client.end_with_word()
    })
  }
})
