// What an admitted client publishes, subscribes and is sent, decided in process on its grant.
//
//   PUBLISH, will ─ authorizePublish ─┐
//   SUBSCRIBE, restored ─ authorizeSubscribe ─┤─► Live.grant.decide()
//   each delivery ─ authorizeForward ─┘

import { LIVE } from './live.js'
import { isTopicName } from './topics.js'

const SYS = '$SYS/'
const DENIED = 128 // 3.9.3
const UNKNOWN_WILL = 'the will of a lost broker cannot be judged'

/** The three hooks of an agent that Aedes calls for every packet, and what becomes of a grant that was swapped. */
export class Checks {
  constructor (agent) {
    this.agent = agent
    this.broker = agent.broker
    this.full = new WeakSet() // clients that were found to be full in this turn of the loop
    this.nowhere = `${SYS}${agent.broker.id}/authsvc/nowhere`
  }

  authorizePublish (client, packet, done) {
    const live = client ? this.agent.byClient.get(client) : undefined
    if (packet.cmd !== 'publish' || packet.brokerId !== undefined) return this.#authorizeWill(client, live, packet, done)
    if (live === undefined) return done(new Error('this connection was not admitted'))
    const decision = this.#decidePublish(live, packet)
    if (decision.allowed) return this.agent.previous.authorizePublish.call(this.broker, client, packet, done)
    this.agent.notices.deny(live, 'publish', packet.topic, decision)
    this.agent.emit('denied', { clientId: live.clientId, action: 'publish', topic: packet.topic, reason: decision.reason })
    if (this.agent.options.onDeniedPublish === 'disconnect') return done(new Error('publish denied'))
    this.#intoNowhere(packet) // 3.1.1 has no refusal of a PUBLISH: it is acknowledged, and reaches nobody
    done(null)
  }

  #decidePublish (live, packet) {
    if (!isTopicName(packet.topic)) return { allowed: false, reason: 'protocol_error', rule: null }
    if (packet.topic.startsWith(SYS)) return { allowed: false, reason: 'no_rule_matches', rule: null } // Aedes' own
    return live.decide('publish', packet.topic, packet.qos, packet.retain === true)
  }

  #authorizeWill (client, live, will, done) {
    if (live === undefined || will !== client.will) {
      // A will that another broker of the cluster left behind: who stored it, and what he may do now, is not known. An
      // error would end the process, since Aedes emits it as its own.
      this.#intoNowhere(will)
      this.agent.emit('denied', { clientId: will.clientId, action: 'will', topic: '', reason: UNKNOWN_WILL })
      return done(null)
    }
    const fine = isTopicName(will.topic) && !will.topic.startsWith(SYS)
    const decision = fine ? live.decideWill(will) : { allowed: false, reason: 'protocol_error', rule: null }
    if (decision.allowed) return this.agent.previous.authorizePublish.call(this.broker, client, will, done)
    this.agent.notices.deny(live, 'publish', will.topic, decision)
    this.agent.emit('denied', { clientId: live.clientId, action: 'will', topic: will.topic, reason: decision.reason })
    done(new Error('will denied'))
  }

  authorizeSubscribe (client, subscription, done) {
    const live = this.agent.byClient.get(client)
    const { topic } = subscription
    const decision = this.#decideSubscribe(client, live, subscription)
    if (decision.allowed) {
      subscription.qos = Math.min(subscription.qos, decision.qos)
      return this.agent.previous.authorizeSubscribe.call(this.broker, client, subscription, done)
    }
    if (live !== undefined) {
      this.agent.notices.deny(live, 'subscribe', topic, decision)
      this.agent.emit('denied', { clientId: live.clientId, action: 'subscribe', topic, reason: decision.reason })
      if (!client.connected) this.#forget(client, [topic]) // restored: Aedes would go on queueing for it
    }
    done(null, null)
  }

  #decideSubscribe (client, live, { topic, qos }) {
    if (live === undefined) return { allowed: false, reason: 'grant_expired', rule: null }
    // Aedes takes `$share/…` for a literal topic, and a filter of more than 100 levels for an error.
    if (topic.startsWith('$share/')) return { allowed: false, reason: 'no_rule_matches', rule: null }
    if (topic.split('/', this.agent.options.maxLevels + 1).length > this.agent.options.maxLevels) {
      return { allowed: false, reason: 'filter_too_wide', rule: null }
    }
    if (client.subscriptions[topic] === undefined && this.#isFull(client)) {
      return { allowed: false, reason: 'subscription_limit', rule: null }
    }
    return live.decideFilter(topic, qos)
  }

  /** Whether the client has all the subscriptions it may have; counted once a turn, for one packet may ask for 60,000. */
  #isFull (client) {
    if (this.full.has(client)) return true
    if (Object.keys(client.subscriptions).length < this.agent.options.maxSubscriptions) return false
    this.full.add(client)
    setImmediate(() => this.full.delete(client))
    return true
  }

  authorizeForward (client, packet) {
    const live = this.agent.byClient.get(client)
    if (live === undefined || packet.topic === this.nowhere) return this.#notForwarded(client, packet)
    const decision = live.decide('deliver', packet.topic, 0, false)
    if (decision.allowed) return this.agent.previous.authorizeForward.call(this.broker, client, packet)
    if (live.state === LIVE) this.agent.notices.deny(live, 'deliver', packet.topic, decision)
    return this.#notForwarded(client, packet)
  }

  /** Take the packet out of the client's queue: Aedes clears by packet id, and has given this one none yet. */
  #notForwarded (client, packet) {
    if (packet.qos > 0 && client.clean === false && packet.messageId === undefined && packet.brokerId) {
      packet.messageId = NEVER_SENT.next() // no id of the wire, so that it cannot be another packet's
      const { brokerId, brokerCounter, messageId } = packet
      this.broker.persistence.outgoingUpdate(client, { brokerId, brokerCounter, messageId }).catch(() => {})
    }
    return null
  }

  /** Give up the subscriptions that the grant of the connection no longer covers. */
  review (live) {
    const { client } = live
    const lost = Object.keys(client.subscriptions).filter((filter) => !live.decideFilter(filter, 2).allowed)
    if (lost.length === 0) return
    client.unsubscribe(lost, () => {})
    this.#forget(client, lost)
  }

  /** Undo what Aedes stores beyond what was granted. */
  afterSubscribe (subscriptions, client) {
    const live = this.agent.byClient.get(client)
    if (live === undefined) return
    // With one filter that is granted Aedes stores every filter of the packet, the denied ones too.
    this.#forget(client, subscriptions.filter(({ qos }) => qos === DENIED).map(({ topic }) => topic))
    const crossed = subscriptions.some(({ topic, qos }) => qos !== DENIED && !live.decideFilter(topic, qos).allowed)
    if (crossed) this.review(live) // the grant was swapped while Aedes stored them
  }

  #forget (client, filters) {
    if (client.clean || filters.length === 0) return
    this.broker.persistence.removeSubscriptions(client, filters)?.catch?.((error) => this.agent.emit('problem', error))
  }

  /** Aedes says in its SUBACK what was asked for: what will be granted has to be known before it reads the packet. */
  lower (client, packet) {
    const live = this.agent.byClient.get(client)
    if (packet.cmd !== 'subscribe' || live === undefined || !Array.isArray(packet.subscriptions)) return
    for (const subscription of packet.subscriptions) {
      const decision = live.decideFilter(subscription.topic, subscription.qos)
      if (decision.allowed) subscription.qos = Math.min(subscription.qos, decision.qos)
    }
  }

  #intoNowhere (packet) {
    packet.topic = this.nowhere
    packet.payload = Buffer.alloc(0)
    packet.retain = false
  }
}

const NEVER_SENT = {
  last: 65_535,
  next () {
    this.last = this.last >= 2 ** 31 ? 65_536 : this.last + 1
    return this.last
  }
}
