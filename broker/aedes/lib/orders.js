// The event stream and what it orders: ends, new grants, changed sets; and the comparison of sessions after each start.
//
// Every answer and event of the service carries its epoch (one per run of the service) and a number that grows (rev):
// an order that was given before a connection was admitted does not mean that connection, whichever arrives first.

import { LIVE } from './live.js'
import { fitting } from './parts.js'
import { KeySet } from './topics.js'

const FIRST_DELAY_MS = 50
const MAX_DELAY_MS = 5_000
const STEADY_MS = 2_000 // that a stream must live before the next one is opened without delay
const PART = 500 // sessions in one request of the comparison, at most
const SETS_KEPT_MS = 60_000

export class Orders {
  constructor (agent) {
    this.agent = agent
    this.sets = new Sets()
    this.epoch = null
    this.synchronised = false
    this.stop = null
    this.delay = FIRST_DELAY_MS
    this.timer = null
    this.steady = null
    this.pending = 0 // questions whose answers are on their way
    this.early = new Map() // client id -> rev of the last end that was ordered meanwhile
    this.later = new Map() // session -> the grant that came before the answer that opens it
    this.wiping = new Map() // client id -> promise
    this.comparison = null // the timer of the next one
    this.comparing = Promise.resolve()
    this.sweeper = setInterval(() => this.sets.sweep(this.agent.lives.values()), SETS_KEPT_MS)
    this.sweeper.unref()
  }

  open () {
    if (this.agent.closed) return
    const query = { node: this.agent.options.node, run: this.agent.run }
    this.stop = this.agent.service.events(query, (event) => this.#take(event), (error) => {
      this.stop = null
      this.#lost(error)
    })
  }

  close () {
    clearTimeout(this.timer)
    clearTimeout(this.comparison)
    clearInterval(this.sweeper)
    this.stop?.()
  }

  /** Note that a question is on its way; returns what to call when it is over. */
  asking () {
    this.pending += 1
    return () => {
      this.pending -= 1
      if (this.pending > 0) return
      this.early.clear()
      this.later.clear()
    }
  }

  /** Give the connection the grant of an answer, or the newer one that was sent before it came. */
  hold (live, answer) {
    if (!Number.isSafeInteger(answer.rev)) throw new TypeError('the answer of the service lacks its number')
    if (this.epoch !== null && live.epoch !== this.epoch) this.stop?.() // the service was started anew: compare
    const later = this.later.get(live.session)
    const { grant, etag, expires_in_ms: expires } = later !== undefined && later.rev > answer.rev ? later : answer
    this.#hold(live, grant, etag, expires)
  }

  endedMeanwhile (live) {
    const rev = this.early.get(live.clientId)
    return rev !== undefined && live.epoch === this.epoch && rev > live.rev
  }

  /** Resolves when nothing of the client id is being wiped any more. */
  async wiped (clientId) {
    while (this.wiping.has(clientId)) await this.wiping.get(clientId)
  }

  #lost (error) {
    const { agent } = this
    this.synchronised = false
    clearTimeout(this.steady)
    if (agent.closed) return
    agent.emit('detached', error)
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.open(), this.delay * (0.5 + Math.random()))
    this.delay = Math.min(this.delay * 2, MAX_DELAY_MS)
  }

  #take (event) {
    if (typeof event !== 'object' || event === null || Array.isArray(event)) throw new TypeError('it is no object')
    switch (event.type) {
      case 'hello': return this.#hello(event)
      case 'grant': return this.#grant(event)
      case 'set': return this.sets.change(event.id, event.rev, event.keys)
      case 'end': return this.#end(event)
      case 'has': return this.#has(event)
      case 'compare': return this.compareSoon(0)
      case 'replaced': // the two would take the stream from each other for ever
        this.delay = MAX_DELAY_MS
        this.agent.emit('problem', new Error(`another agent has attached as node \`${this.agent.options.node}\``))
        return
      case 'synchronised':
        this.synchronised = true
        this.steady = setTimeout(() => { this.delay = FIRST_DELAY_MS }, STEADY_MS)
        this.steady.unref()
        this.agent.emit('attached')
    } // anything else is of a newer service
  }

  #hello ({ epoch }) {
    if (typeof epoch !== 'string') throw new TypeError('the greeting has no epoch')
    if (epoch !== this.epoch) {
      this.epoch = epoch
      this.sets.forgetNumbers()
      for (const live of this.agent.lives.values()) {
        if (live.epoch !== epoch) live.rev = -1 // whatever this run of the service says is newer
      }
    }
    this.compareSoon(0)
  }

  /**
   * Compare the sessions again: asked by the service, or because an answer was lost and with it a session of which
   * nobody here knows.
   */
  compareSoon (delayMs) {
    if (this.comparison !== null || this.agent.closed) return
    this.comparison = setTimeout(() => {
      this.comparison = null
      if (this.stop === null || this.epoch === null) return // the next greeting will have it done
      this.comparing = this.comparing.then(() => this.#compare()).catch((error) => {
        this.agent.emit('problem', error)
        this.stop?.()
      })
    }, delayMs)
    this.comparison.unref()
  }

  /** Tell the service whom we have: it answers over the stream with ends and with the grants that have changed. */
  async #compare () {
    const { service, lives, options, run } = this.agent
    const all = [...lives.values()].filter(({ state }) => state === LIVE)
    const part = { node: options.node, run, epoch: this.epoch }
    for (let first = 0; first < all.length;) {
      const next = all.slice(first, first + PART).map(({ clientId, session, etag }) => [clientId, session, etag])
      const sessions = next.slice(0, fitting(next, PART))
      await service.tell('resync', { ...part, sessions, last: false })
      first += sessions.length
    }
    await service.tell('resync', { ...part, sessions: [], last: true })
  }

  #grant (event) {
    const { client_id: clientId, session, rev, was } = event
    if (typeof session !== 'string' || !Number.isSafeInteger(rev)) throw new TypeError('a grant for nobody')
    const live = this.agent.lives.get(clientId)
    if (live === undefined || (live.session !== session && live.session !== was)) {
      if (this.pending > 0) this.later.set(session, event)
      return
    }
    if (live.state !== LIVE || (live.epoch === this.epoch && live.rev > rev && live.session === session)) return
    live.session = session
    live.epoch = this.epoch
    live.rev = Math.max(live.rev, rev)
    try {
      this.#hold(live, event.grant, event.etag, event.expires_in_ms)
    } catch (error) { // what it held is no longer right, and what is right cannot be read
      this.agent.end(live, { will: 'never', wipe: false })
      throw error
    }
    this.agent.checks.review(live)
  }

  #hold (live, grant, etag, expires) {
    const fine = expires === null || (typeof expires === 'number' && expires >= 0)
    if (!fine || typeof etag !== 'string') throw new TypeError('a grant without its expiry')
    live.hold(this.agent.grantOf(grant), etag, expires, (it) => this.agent.expired(it))
  }

  #end (event) {
    const { client_id: clientId, rev, will, wipe, call } = event
    if (typeof clientId !== 'string' || !Number.isSafeInteger(rev)) throw new TypeError('an end of nobody')
    const live = this.agent.lives.get(clientId)
    if (live !== undefined && (live.epoch !== this.epoch || live.rev < rev)) {
      this.agent.end(live, { will: will === 'send' ? 'send' : 'never', wipe: wipe === true })
    }
    if (this.pending > 0) this.early.set(clientId, Math.max(rev, this.early.get(clientId) ?? -1))
    const held = this.agent.lives.get(clientId)
    const newer = held !== undefined && held.state === LIVE // nothing of a newer connection is wiped
    const done = wipe === true && !newer ? this.wipe(clientId) : Promise.resolve()
    done.then(() => {
      if (Number.isSafeInteger(call)) this.agent.notices.answer(call, { ok: true })
    }, (error) => this.agent.emit('problem', error)) // unanswered, it is ordered again
  }

  /** Take from Aedes' store all that is kept for a client id: subscriptions, queue, incoming packets, will. */
  wipe (clientId) {
    const { persistence, id: brokerId } = this.agent.broker
    const client = { id: clientId, brokerId }
    const work = async () => {
      await this.wiping.get(clientId)
      await persistence.cleanSubscriptions(client)
      let messageId = 65_536
      for await (const packet of persistence.outgoingStream(client)) {
        if (packet.messageId === undefined) { // queued, and not sent yet: Aedes clears by packet id
          packet.messageId = messageId++
          await persistence.outgoingUpdate(client, packet).catch(() => {})
        }
        await persistence.outgoingClearMessageId(client, packet)
      }
      if (typeof persistence.cleanIncoming === 'function') await persistence.cleanIncoming(client)
      await persistence.delWill(client)
    }
    const wiped = work().finally(() => {
      if (this.wiping.get(clientId) === known) this.wiping.delete(clientId)
    })
    const known = wiped.catch(() => {}) // whoever waits for it only waits
    this.wiping.set(clientId, known)
    return wiped
  }

  async #has ({ client_id: clientId, call }) {
    const { broker, lives, notices } = this.agent
    let found = lives.has(clientId) || broker.clients[clientId]?.closed === false
    try {
      if (!found) found = (await broker.persistence.subscriptionsByClient({ id: clientId })).length > 0
      if (!found) {
        for await (const packet of broker.persistence.outgoingStream({ id: clientId })) {
          found = packet !== undefined
          break
        }
      }
      notices.answer(call, { ok: true, found })
    } catch (error) {
      this.agent.emit('problem', error)
    }
  }
}

/** The sets that grants refer to, one object for all sessions. */
class Sets {
  constructor () {
    this.known = new Map() // id -> {set, rev, at}
  }

  /** The set of this id: as it was at `rev`, or newer. */
  put (id, rev, keys) {
    const known = this.known.get(id)
    if (known === undefined) {
      const set = new KeySet(keys)
      this.known.set(id, { set, rev, at: Date.now() })
      return set
    }
    if (rev > known.rev) {
      known.rev = rev
      known.set.replace(keys)
    }
    return known.set
  }

  change (id, rev, keys) {
    const fine = Array.isArray(keys) && keys.every((key) => typeof key === 'string')
    if (typeof id !== 'string' || !Number.isSafeInteger(rev) || !fine) throw new TypeError('a set is malformed')
    this.put(id, rev, keys)
  }

  forgetNumbers () {
    for (const known of this.known.values()) known.rev = -1
  }

  /** Forget what no grant has referred to for a while: the answer that does may be on its way. */
  sweep (lives) {
    const used = new Set()
    for (const { grant } of lives) {
      for (const set of grant.sets) used.add(set)
    }
    for (const [id, known] of this.known) {
      if (used.has(known.set)) known.at = Date.now()
      else if (Date.now() - known.at > SETS_KEPT_MS) this.known.delete(id)
    }
  }
}
