// The rules compiled for one principal, and the decisions that they give: authsvc/core/grants.py, for deliveries that
// are checked. tests/adapters/test_aedes_decisions.py holds both to the same answers.

import {
  isTopicFilter, KeySet, levelsCover, levelsMatch, levelsOverlap, sharedInner, splitFilter
} from './topics.js'

const MEMO_ENTRIES = 512
const MEMO_TOPIC_LENGTH = 256

const NO_RULE = deny('no_rule_matches')
const NOT_A_TOPIC = deny('protocol_error')

/** A malformed grant: nothing is decided by a part of it. */
export class MalformedGrant extends Error {}

export class Grant {
  /** Rules in order of rank, as the service lists them: `{rule, allow, levels, qos_max, retain}`. */
  constructor (publish, subscribe, sets) {
    this.publish = publish
    this.subscribe = subscribe
    this.sets = sets
    this.memo = new Memo(this)
  }

  /**
   * Read a grant from plain data: `publish` and `subscribe` are lists of rules, `sets` maps the names of their set
   * levels to `{id, rev, keys}`. `keySet(id, rev, keys)` returns the KeySet to use, so that sessions share them.
   * Throws MalformedGrant.
   */
  static from (data, keySet = (id, rev, keys) => new KeySet(keys)) {
    if (!isObject(data) || !isObject(data.sets)) throw new MalformedGrant('the grant is no object')
    const named = new Map()
    for (const [name, set] of Object.entries(data.sets)) {
      const fine = isObject(set) && typeof set.id === 'string' && Number.isSafeInteger(set.rev)
      if (!fine || !isTexts(set.keys)) throw new MalformedGrant(`set ${name} is malformed`)
      named.set(name, keySet(set.id, set.rev, set.keys))
    }
    return new Grant(entries(data.publish, named), entries(data.subscribe, named), [...named.values()])
  }

  /** Grows whenever a set that the grant refers to changes: decisions made before are then void. */
  get version () {
    let sum = 0
    for (const set of this.sets) sum += set.version
    return sum
  }

  /**
   * Whether `action` ('publish', 'subscribe', 'deliver') on the topic or filter is allowed, and why:
   * `{allowed, reason, rule, qos}`. A deny beats every allow.
   */
  decide (action, topic, { qos = 0, retain = false, deliveriesChecked = true } = {}) {
    if (action === 'subscribe') return this.#decideFilter(topic, qos, deliveriesChecked)
    if (topic === '' || topic.includes('+') || topic.includes('#')) return NOT_A_TOPIC
    if (action === 'publish') return judgePublish(this.publish, topic.split('/'), qos, retain)
    if (action === 'deliver') return judgeDelivery(this.subscribe, topic.split('/'))
    throw new TypeError(`\`${action}\` is no action`)
  }

  #decideFilter (filter, qos, deliveriesChecked) {
    const shared = sharedInner(filter)
    const inner = shared === null ? filter : shared
    if (inner === undefined || !isTopicFilter(inner)) return NOT_A_TOPIC
    // A message that is denied to the member that was chosen is lost to its whole group: a shared subscription must
    // be covered as it stands.
    const narrowed = deliveriesChecked && shared === null
    const requested = splitFilter(inner)
    let granted = null
    let wider = null
    let crossing = null
    for (const entry of this.subscribe) {
      if (!entry.allow) {
        if (levelsCover(entry.levels, requested, false)) return deny('rule_denies', entry.rule)
        if (crossing === null && levelsOverlap(entry.levels, requested)) crossing = entry
      } else if (levelsCover(entry.levels, requested, narrowed)) {
        if (granted === null || entry.qosMax > granted.qosMax) granted = entry
      } else if (wider === null && levelsOverlap(entry.levels, requested)) {
        wider = entry
      }
    }
    if (granted === null) return wider === null ? NO_RULE : deny('filter_too_wide', wider.rule)
    if (crossing !== null && !narrowed) return deny('rule_denies', crossing.rule)
    return allow(granted.rule, Math.min(qos, granted.qosMax))
  }
}

/** Decisions on topics that were made before, while grant and sets are the same; bounded. */
class Memo {
  constructor (grant) {
    this.grant = grant
    this.version = grant.version
    this.tables = new Map()
    this.size = 0
  }

  decide (action, topic, qos, retain) {
    const version = this.grant.version
    if (version !== this.version || this.size >= MEMO_ENTRIES) {
      this.version = version
      this.tables.clear()
      this.size = 0
    }
    const name = action === 'publish' ? `publish ${qos} ${retain}` : action
    let table = this.tables.get(name)
    if (table === undefined) this.tables.set(name, table = new Map())
    let decision = table.get(topic)
    if (decision === undefined) {
      decision = this.grant.decide(action, topic, { qos, retain })
      if (topic.length <= MEMO_TOPIC_LENGTH) {
        table.set(topic, decision)
        this.size += 1
      }
    }
    return decision
  }
}

function judgePublish (rules, topic, qos, retain) {
  let allowing = null
  let lowQos = null
  let otherFlag = null
  for (const entry of rules) { // by rank, so the first of each is the one named
    if (!levelsMatch(topic, entry.levels)) continue
    const sameFlag = entry.retain === null || entry.retain === retain
    if (!entry.allow) {
      if (sameFlag) return deny('rule_denies', entry.rule)
    } else if (sameFlag) {
      if (qos <= entry.qosMax) allowing ??= entry
      else lowQos ??= entry
    } else if (qos <= entry.qosMax) {
      otherFlag ??= entry
    }
  }
  if (allowing !== null) return allow(allowing.rule, 0)
  if (lowQos !== null) return deny('qos_too_high', lowQos.rule)
  if (otherFlag !== null) return deny('retain_denied', otherFlag.rule)
  return NO_RULE
}

function judgeDelivery (rules, topic) {
  let allowing = null
  for (const entry of rules) {
    if (!levelsMatch(topic, entry.levels)) continue
    if (!entry.allow) return deny('rule_denies', entry.rule)
    allowing ??= entry
  }
  return allowing === null ? NO_RULE : allow(allowing.rule, 0)
}

function allow (rule, qos) {
  return { allowed: true, reason: 'rule_allows', rule, qos }
}

function deny (reason, rule = null) {
  return { allowed: false, reason, rule, qos: 0 }
}

function entries (list, sets) {
  if (!Array.isArray(list)) throw new MalformedGrant('the rules are no list')
  return list.map((rule) => {
    const fine = isObject(rule) && typeof rule.rule === 'string' && typeof rule.allow === 'boolean' &&
      [0, 1, 2].includes(rule.qos_max) && [null, true, false].includes(rule.retain) &&
      Array.isArray(rule.levels) && rule.levels.length > 0
    if (!fine) throw new MalformedGrant('a rule is malformed')
    const levels = rule.levels.map((level) => {
      if (typeof level === 'string') return level
      const set = isObject(level) ? sets.get(level.set) : undefined
      if (set === undefined) throw new MalformedGrant('a rule has a level that is neither text nor a known set')
      return set
    })
    return { rule: rule.rule, allow: rule.allow, levels, qosMax: rule.qos_max, retain: rule.retain }
  })
}

function isObject (value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isTexts (value) {
  return Array.isArray(value) && value.every((key) => typeof key === 'string')
}
