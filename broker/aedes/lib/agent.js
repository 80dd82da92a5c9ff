// Between Aedes and the service: asks at CONNECT, decides everything after it in process, and follows the event stream.
//
//   CONNECT ─ preConnect ─► service ─ grant ─► authenticate (CONNACK)
//   PUBLISH, SUBSCRIBE, each delivery ─► Checks ─► Live.grant.decide()
//   service ─ event stream ─► ends, grants, sets
//
// The question is asked in preConnect and not in authenticate, because there the client has no id yet: a connection
// that is refused, or lost while it waits, has nothing in Aedes that another one could own. (Aedes 1.2 clears the
// incoming QoS 2 packets of a client's id when a connection with clean session closes, refused ones included.)

import { EventEmitter } from 'node:events'
import { randomUUID } from 'node:crypto'
import { Checks } from './checks.js'
import { Grant } from './grant.js'
import { ENDING, DEAD, LIVE, Live } from './live.js'
import { Notices } from './notices.js'
import { Orders } from './orders.js'
import { Service } from './service.js'

const BAD_CLIENT_ID = 2 // 3.2.2.3
const UNAVAILABLE = 3
const COMPARE_MS = 200
const CLOSE_MS = 1_000 // that a connection which is taken over may take to close

const DEFAULTS = {
  name: 'aedes',
  node: 'aedes',
  timeoutMs: 5_000,
  onDeniedPublish: 'drop',
  maxSubscriptions: 1_000,
  maxLevels: 32
}

export class Agent extends EventEmitter {
  constructor (broker, options) {
    super()
    const { url, secret, tls, ...rest } = { ...DEFAULTS, ...options }
    if (rest.onDeniedPublish !== 'drop' && rest.onDeniedPublish !== 'disconnect') {
      throw new TypeError('onDeniedPublish must be `drop` or `disconnect`')
    }
    this.broker = broker
    this.options = rest
    this.run = randomUUID()
    this.closed = false
    this.lives = new Map() // client id -> Live; one at most, as in Aedes
    this.service = new Service({ url, secret, tls, name: rest.name, timeoutMs: rest.timeoutMs })
    this.notices = new Notices((body) => this.service.tell('notices', { ...this.#self(), ...body }))
    this.orders = new Orders(this)
    this.byClient = new WeakMap() // the Client of Aedes -> Live, as long as Aedes has it
    this.verdicts = new WeakMap() // the Client of Aedes -> what authenticate answers
    this.checks = new Checks(this)
    this.previous = {}
    this.#takeOver(['preConnect', 'authenticate'], this)
    this.#takeOver(['authorizePublish', 'authorizeSubscribe', 'authorizeForward'], this.checks)
    broker.on('subscribe', (subscriptions, client) => this.checks.afterSubscribe(subscriptions, client))
    this.orders.open()
  }

  /** Whether the event stream is open and the sessions have been compared. */
  get connected () {
    return this.orders.synchronised
  }

  /** Stop following the service. New connections are refused; live ones keep their grants until these expire. */
  close () {
    if (this.closed) return
    this.closed = true
    this.orders.close()
    this.notices.close()
    this.service.close()
    for (const live of this.lives.values()) clearTimeout(live.timer)
  }

  preConnect (client, packet, done) {
    client.pause() // Aedes would handle what follows in a second chunk, before anybody said who this is
    const { broker } = this
    this.previous.preConnect.call(broker, client, packet, (error, fine) => {
      if (error || fine !== true) return done(error, fine)
      if (!this.#wanted(client, packet)) return done(null, true)
      this.#ask(client, packet).then((verdict) => {
        if (client.closed) {
          if (verdict.live) this.#left(verdict.live)
          return done(null, false)
        }
        this.verdicts.set(client, verdict)
        // Aedes must not have the name of somebody else for a connection that it is about to close.
        packet.clientId = verdict.live ? verdict.live.clientId : `refused-${randomUUID().slice(0, 8)}`
        done(null, true)
      }, (cause) => { // an accident never looks like a yes
        client.conn.destroy()
        done(cause)
      })
    })
  }

  authenticate (client, username, password, done) {
    const verdict = this.verdicts.get(client)
    this.verdicts.delete(client)
    const live = verdict?.live
    if (!live || live.state !== LIVE || live.client !== client || client.id !== live.clientId) {
      const error = new Error('refused')
      error.returnCode = verdict?.code ?? UNAVAILABLE
      return done(error, false)
    }
    this.previous.authenticate.call(this.broker, client, username, password, (error, fine) => {
      if (error || !fine) client.clean = false // see the head of this file: the id is somebody's
      done(error, fine)
    })
  }

  /** Put the methods of `own` in the place of the broker's hooks, which `previous` keeps. */
  #takeOver (names, own) {
    for (const name of names) {
      this.previous[name] = this.broker[name]
      this.broker[name] = (...args) => own[name](...args)
    }
  }

  /** Ask the service about a CONNECT; returns `{live}` or `{code}`. */
  async #ask (client, packet) {
    const body = {
      ...this.#self(),
      client_id: packet.clientId,
      clean: packet.clean === true,
      username: packet.username === undefined ? null : String(packet.username),
      password: packet.password === undefined ? null : Buffer.from(packet.password).toString('base64'),
      keep_alive: packet.keepalive,
      level: packet.protocolVersion,
      will: packet.will ? { topic: packet.will.topic, qos: packet.will.qos, retain: packet.will.retain === true } : null,
      peer: peerOf(client)
    }
    if (this.closed) return { code: UNAVAILABLE }
    const asked = this.orders.asking()
    try {
      await this.orders.wiped(packet.clientId)
      const answer = await this.service.ask('connect', body)
      if (answer.result !== 'allow') {
        this.emit('refused', { clientId: packet.clientId, reason: answer.reason })
        return { code: [1, 2, 3, 4, 5].includes(answer.code) ? answer.code : 5 }
      }
      return await this.#admit(client, answer)
    } catch (error) {
      this.emit('refused', { clientId: packet.clientId, reason: 'store_unavailable' })
      this.emit('problem', error)
      this.orders.compareSoon(COMPARE_MS) // the service may have admitted it, in the place of one that lives here
      return { code: UNAVAILABLE }
    } finally {
      asked()
    }
  }

  async #admit (client, answer) {
    const live = new Live(client, {
      session: text(answer.session), clientId: text(answer.client_id), epoch: text(answer.epoch), rev: answer.rev
    })
    if (this.orders.endedMeanwhile(live)) return { code: 5 }
    this.orders.hold(live, answer)
    const former = this.lives.get(live.clientId)
    this.lives.set(live.clientId, live)
    this.byClient.set(client, live)
    client.conn.once('close', () => setImmediate(() => this.#left(live)))
    client._parser?.prependListener('packet', (packet) => this.checks.lower(client, packet))
    for (const packet of client._parser?._queue ?? []) this.checks.lower(client, packet) // sent without awaiting the CONNACK
    if (former !== undefined) { // the same principal: its will goes out before the new CONNACK
      former.stop(ENDING)
      await new Promise((resolve) => {
        setTimeout(resolve, CLOSE_MS).unref()
        former.client.close(resolve)
        former.client.conn.destroy()
      })
    }
    if (client.conn.destroyed) this.#left(live)
    return { live }
  }

  /** End a connection at once: nothing that waits to be written is. */
  end (live, { will, wipe }) {
    if (live.state !== LIVE) return
    const { client } = live
    live.stop(will === 'send' ? ENDING : DEAD)
    if (will !== 'send') {
      client.will = null
      client._will = null
      this.broker.persistence.delWill({ id: live.clientId, brokerId: this.broker.id })?.catch?.(() => {})
    }
    client.close()
    client.conn.destroy()
    this.emit('ended', { clientId: live.clientId, wipe })
  }

  expired (live) {
    this.end(live, { will: 'send', wipe: false })
  }

  /** Whether Aedes itself lets this CONNECT pass: one that it refuses must not be admitted. */
  #wanted (client, { protocolVersion, clientId, clean, keepalive }) {
    const { maxClientsIdLength, keepaliveLimit } = this.broker
    if (protocolVersion !== 3 && protocolVersion !== 4) return false
    if (protocolVersion === 3 && clientId.length > maxClientsIdLength) return false
    if (keepaliveLimit && (!keepalive || keepalive > keepaliveLimit)) return false
    if (clientId === '' && !clean) { // MQTT-3.1.3-8, which Aedes leaves out
      this.verdicts.set(client, { code: BAD_CLIENT_ID })
      return false
    }
    return true
  }

  #left (live) {
    if (live.gone) return
    live.gone = true
    if (live.state === LIVE) live.stop(ENDING) // its will may still be on the way
    if (this.lives.get(live.clientId) === live) this.lives.delete(live.clientId)
    if (this.closed) return
    this.notices.left(live, live.client.clean === false)
    const { broker } = this
    setTimeout(() => { // Aedes registers a connection that was lost between authenticate and CONNACK, and keeps it
      if (broker.clients[live.clientId] === live.client && live.client.closed) broker.unregisterClient(live.client)
    }, CLOSE_MS).unref()
  }

  /** Read a grant that came from the service. Throws what `Grant.from` throws. */
  grantOf (data) {
    return Grant.from(data, (id, rev, keys) => this.orders.sets.put(id, rev, keys))
  }

  #self () {
    return { node: this.options.node, run: this.run }
  }
}

function peerOf (client) {
  const { remoteAddress, remotePort } = client.conn?.socket ?? client.req?.socket ?? client.conn ?? {}
  const connection = client.connDetails ?? {}
  const address = connection.ipAddress ?? remoteAddress
  if (typeof address !== 'string') return ''
  const port = connection.port ?? remotePort ?? 0
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

function text (value) {
  if (typeof value !== 'string') throw new TypeError('the answer of the service lacks a text')
  return value
}
