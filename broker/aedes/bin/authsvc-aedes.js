#!/usr/bin/env node
// An Aedes broker on one port, attached to authsvc. It keeps everything in memory; a program of your own, with a
// persistence of your choice, needs the line with `attach` and nothing else.

import { readFileSync } from 'node:fs'
import net from 'node:net'
import { parseArgs } from 'node:util'
import { Aedes } from 'aedes'
import { attach } from '../index.js'

const USAGE = `usage: authsvc-aedes --authsvc URL [--secret-file FILE] [--name aedes] [--node aedes]
                     [--host 127.0.0.1] [--port 1883] [--timeout-ms 5000]
                     [--on-denied-publish drop|disconnect] [--tls-ca FILE] [--tls-cert FILE --tls-key FILE]

Runs an MQTT 3.1.1 broker whose clients are admitted and whose messages are decided by authsvc.
The TLS files are for the way to authsvc. Example:

  authsvc-aedes --port 1883 --authsvc http://127.0.0.1:8080 --secret-file aedes-secret
`

let values
try {
  ({ values } = parseArgs({
    options: {
      authsvc: { type: 'string' },
      'secret-file': { type: 'string' },
      name: { type: 'string', default: 'aedes' },
      node: { type: 'string', default: 'aedes' },
      host: { type: 'string', default: '127.0.0.1' },
      port: { type: 'string', default: '1883' },
      'timeout-ms': { type: 'string', default: '5000' },
      'on-denied-publish': { type: 'string', default: 'drop' },
      'tls-ca': { type: 'string' },
      'tls-cert': { type: 'string' },
      'tls-key': { type: 'string' },
      help: { type: 'boolean', short: 'h' }
    }
  }))
} catch (error) {
  usage(error.message)
}
if (values.help) {
  process.stdout.write(USAGE)
  process.exit(0)
}
if (!values.authsvc) usage('--authsvc is missing')

const tls = Object.fromEntries(['ca', 'cert', 'key']
  .filter((name) => values[`tls-${name}`])
  .map((name) => [name, readFileSync(values[`tls-${name}`])]))

const broker = await Aedes.createBroker()
const agent = attach(broker, {
  url: values.authsvc,
  secretFile: values['secret-file'],
  name: values.name,
  node: values.node,
  timeoutMs: Number(values['timeout-ms']),
  onDeniedPublish: values['on-denied-publish'],
  tls
})
for (const event of ['attached', 'detached', 'refused', 'denied', 'ended', 'problem']) {
  agent.on(event, (detail) => say(event, detail))
}
broker.on('error', (error) => say('problem', error))

const server = net.createServer(broker.handle)
server.on('error', (error) => {
  process.stderr.write(`authsvc-aedes: ${error.message}\n`)
  process.exit(1)
})
server.listen({ host: values.host, port: Number(values.port) }, () => {
  const { address, port } = server.address()
  process.stdout.write(`MQTT on ${address}:${port}\n`)
})

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.once(signal, () => {
    server.close()
    broker.close(() => {
      agent.close()
      process.exit(0)
    })
  })
}

function say (event, detail) {
  const what = detail instanceof Error ? { message: detail.message } : detail
  process.stderr.write(`${JSON.stringify({ time: new Date().toISOString(), event, ...what })}\n`)
}

function usage (problem) {
  process.stderr.write(`authsvc-aedes: ${problem}\n${USAGE}`)
  process.exit(2)
}
