'use strict'
// will.cjs ADDRESS VERSION TOPIC: connects with a will and is gone.

const { converse } = require('./conversation.cjs')

const [address, version, topic] = process.argv.slice(2)
const will = { topic, payload: Buffer.from('gone'), qos: 1, retain: false }

converse(address, version, 'mqttjs-mortal', { will }, () => process.exit(0))
