import { readFileSync } from 'node:fs'
import { Agent } from './lib/agent.js'

export { Agent }

/**
 * Attach an Aedes broker to authsvc: who connects, publishes, subscribes and receives is decided by its grants.
 * See index.d.ts for the options. Returns the agent; nothing has to be done with it.
 */
export function attach (broker, options) {
  const { secretFile, ...rest } = options
  const secret = secretFile === undefined ? rest.secret : readFileSync(secretFile, 'utf8').trim()
  return new Agent(broker, { ...rest, secret })
}
