// What the service is told without being asked: who left, what was denied, which of its orders are done.

import { fitting } from './parts.js'

const MAX_WAITING = 5_000 // of each kind; who left is also told when the sessions are compared
const PER_REQUEST = 200 // at most
const MAX_TOPIC = 256 // characters of a denied one
const SOON_MS = 5
const DENIALS_MS = 500
const AGAIN_MS = 1_000

export class Notices {
  /** `send(body)` posts one batch. */
  constructor (send) {
    this.send = send
    this.gone = []
    this.done = []
    this.denied = new Map()
    // The service takes who left when an order that is under way for him is done. So the answer to an order waits for
    // no other notice: the two would wait for each other.
    this.answers = new Lane(() => this.#sendAnswers())
    this.others = new Lane(() => this.#sendOthers())
  }

  left (live, kept) {
    if (this.gone.length < MAX_WAITING) this.gone.push({ client_id: live.clientId, session: live.session, kept })
    this.others.goIn(SOON_MS)
  }

  answer (call, result) {
    if (this.done.length < MAX_WAITING) this.done.push({ call, ...result })
    this.answers.goIn(SOON_MS)
  }

  /** Equal denials are counted, not told one by one. */
  deny (live, action, wholeTopic, decision) {
    const topic = wholeTopic.slice(0, MAX_TOPIC).toWellFormed() // it may be cut in half a character
    const key = `${live.session} ${action} ${decision.reason} ${topic}`
    const known = this.denied.get(key)
    if (known !== undefined) {
      known.count += 1
    } else if (this.denied.size < MAX_WAITING) {
      const { reason, rule } = decision
      const session = live.session
      this.denied.set(key, { session, client_id: live.clientId, action, topic, reason, rule, count: 1 })
    }
    this.others.goIn(DENIALS_MS)
  }

  close () {
    this.answers.close()
    this.others.close()
  }

  async #sendAnswers () {
    const done = this.done.splice(0, PER_REQUEST)
    await this.send({ done }).catch(() => {}) // an order whose answer is lost is given again
    return this.done.length > 0 ? SOON_MS : null
  }

  async #sendOthers () {
    const gone = this.gone.splice(0, fitting(this.gone, PER_REQUEST))
    const denied = [...this.denied.values()].slice(0, fitting(this.denied.values(), PER_REQUEST))
    for (const key of [...this.denied.keys()].slice(0, denied.length)) this.denied.delete(key)
    let delay = SOON_MS
    try {
      await this.send({ gone, denied })
    } catch {
      this.gone.unshift(...gone) // denials are not worth it
      this.gone.length = Math.min(this.gone.length, MAX_WAITING)
      delay = AGAIN_MS
    }
    return this.gone.length + this.denied.size > 0 ? delay : null
  }
}

/** Sends one request after the other; `send` returns after how many milliseconds the next one is due, or null. */
class Lane {
  constructor (send) {
    this.send = send
    this.timer = null
    this.at = Infinity
    this.sending = false
    this.closed = false
  }

  goIn (delayMs) {
    const at = Date.now() + delayMs
    if (this.closed || this.sending || at >= this.at) return
    clearTimeout(this.timer)
    this.at = at
    this.timer = setTimeout(() => this.#go(), delayMs)
    this.timer.unref()
  }

  async #go () {
    this.at = Infinity
    this.sending = true
    const delay = await this.send()
    this.sending = false
    if (delay !== null) this.goIn(delay)
  }

  close () {
    this.closed = true
    clearTimeout(this.timer)
  }
}
