// One admitted connection: what it may do now, until when, and its end.

import { performance } from 'node:perf_hooks'

const MAX_TIMER_MS = 2 ** 31 - 1

export const LIVE = 'live' // its actions are decided on
export const ENDING = 'ending' // nothing is allowed any more but its will
export const DEAD = 'dead' // nothing at all

export class Live {
  constructor (client, { session, clientId, epoch, rev }) {
    this.client = client
    this.session = session
    this.clientId = clientId
    this.epoch = epoch // of the service's run that knows it
    this.rev = rev // the place of its admission among all that the service said
    this.state = LIVE
    this.grant = null
    this.etag = ''
    this.deadline = Infinity
    this.timer = null
  }

  /** Take a grant; `expired` is called when it ends. */
  hold (grant, etag, expiresInMs, expired) {
    this.grant = grant
    this.etag = etag
    this.deadline = expiresInMs === null ? Infinity : performance.now() + expiresInMs
    this.#watch(expired)
  }

  #watch (expired) {
    clearTimeout(this.timer)
    if (this.deadline === Infinity) return
    const left = Math.max(0, this.deadline - performance.now())
    this.timer = setTimeout(() => {
      if (performance.now() < this.deadline) this.#watch(expired)
      else expired(this)
    }, Math.min(left, MAX_TIMER_MS))
    this.timer.unref()
  }

  /** The decision on one topic, from memory where it can be. Not for filters. */
  decide (action, topic, qos, retain) {
    if (this.state !== LIVE) return ENDED
    if (performance.now() >= this.deadline) return EXPIRED
    return this.grant.memo.decide(action, topic, qos, retain)
  }

  /** The decision on the will, which may still go out while the connection is ending. */
  decideWill (will) {
    if (this.state === DEAD) return ENDED
    return this.grant.decide('publish', will.topic, { qos: will.qos, retain: will.retain === true })
  }

  decideFilter (filter, qos) {
    if (this.state !== LIVE) return ENDED
    if (performance.now() >= this.deadline) return EXPIRED
    return this.grant.decide('subscribe', filter, { qos })
  }

  stop (state) {
    this.state = state
    clearTimeout(this.timer)
  }
}

const ENDED = { allowed: false, reason: 'grant_expired', rule: null, qos: 0 }
const EXPIRED = ENDED
