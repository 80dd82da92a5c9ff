import { EventEmitter } from 'node:events'
import type Aedes from 'aedes'

export interface Options {
  /** Where authsvc's hooks are served, such as `http://127.0.0.1:8080`. */
  url: string
  /** The shared secret of `[brokers.NAME]`; or `secretFile`, whose content without white space around it is it. */
  secret?: string
  secretFile?: string
  /** NAME of the section `[brokers.NAME]`. Default `aedes`. */
  name?: string
  /** Which process of a cluster this is: each needs a name of its own. Default `aedes`. */
  node?: string
  /** How long a CONNECT waits for the answer before it is refused. Default 5000. */
  timeoutMs?: number
  /** What becomes of a PUBLISH that is denied: `drop` acknowledges it (default), `disconnect` ends the connection. */
  onDeniedPublish?: 'drop' | 'disconnect'
  /** Of one connection; more are answered 128. Default 1000. */
  maxSubscriptions?: number
  /** Of a filter; deeper ones are answered 128. Default 32. */
  maxLevels?: number
  /** For https: a private authority, and the certificate where authsvc demands one. */
  tls?: { ca?: string | Buffer; cert?: string | Buffer; key?: string | Buffer; servername?: string }
}

/**
 * Emits `attached`, `detached(Error)` (the event stream), `refused({clientId, reason})`,
 * `denied({clientId, action, topic, reason})`, `ended({clientId, wipe})` and `problem(Error)`.
 */
export class Agent extends EventEmitter {
  constructor (broker: Aedes, options: Options)
  /** Whether the event stream is open and the sessions have been compared. */
  readonly connected: boolean
  /** Stop: new connections are refused, live ones keep their grants until these expire. */
  close (): void
}

/** Attach an Aedes broker to authsvc. Call it before the first connection is handed to `broker.handle`. */
export function attach (broker: Aedes, options: Options): Agent
