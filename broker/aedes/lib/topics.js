// The relations between topic names and filters, as authsvc/core/topics.py has them (MQTT 3.1.1 section 4.7).
// A level of a rule is a string, or a set of keys (a KeySet): such a level matches its members.

const MAX_BYTES = 65_535 // 1.5.3: the length of a string travels in two bytes
// MQTT-1.5.3-1, -2: no surrogates, no NUL. The other control characters "SHOULD NOT" be there; here they must not.
const FORBIDDEN = /[\0-\x1f\x7f-\x9f\p{Cs}]/u
const UNSAFE = /[+#/\0-\x1f\x7f-\x9f\p{Cs}]/u

/** A changing set of keys that rules refer to; `version` grows with each change. */
export class KeySet {
  constructor (keys = []) {
    this.keys = new Set(keys)
    this.version = 0
  }

  replace (keys) {
    this.keys = new Set(keys)
    this.version += 1
  }
}

/** Whether the text may be a topic name. Rules are not asked. */
export function isTopicName (text) {
  return isText(text) && !text.includes('+') && !text.includes('#')
}

/** Whether the text is a valid topic filter, however deep. */
export function isTopicFilter (text) {
  if (!isText(text)) return false
  const levels = text.split('/')
  const last = levels.length - 1
  return levels.every((level, index) => {
    if (level.includes('#') && (level !== '#' || index !== last)) return false // MQTT-4.7.1-2
    return !level.includes('+') || level === '+' // MQTT-4.7.1-3
  })
}

/** The filter inside `$share/group/filter`; null: it is no shared one; undefined: it begins like one and is none. */
export function sharedInner (filter) {
  if (filter !== '$share' && !filter.startsWith('$share/')) return null
  const rest = filter.slice('$share/'.length)
  const slash = rest.indexOf('/')
  const group = slash < 0 ? rest : rest.slice(0, slash)
  const inner = slash < 0 ? '' : rest.slice(slash + 1)
  return group === '' || UNSAFE.test(group) || inner === '' ? undefined : inner
}

/** The levels of a filter, with `#` spelled `+/#` and `/#` spelled `/+/#`: no topic is empty (MQTT-4.7.3-1). */
export function splitFilter (filter) {
  if (filter === '#') return ['+', '#']
  if (filter === '/#') return ['', '+', '#']
  return filter.split('/')
}

/** Whether the topic (split) matches the rule's levels. */
export function levelsMatch (topic, filter) {
  if (topic[0].startsWith('$') && (filter[0] === '+' || filter[0] === '#')) return false // MQTT-4.7.2-1
  const depth = topic.length
  for (let index = 0; index < filter.length; index++) {
    const wanted = filter[index]
    if (wanted === '#') return true // 4.7.1.2: at index === depth this is the parent level
    if (index === depth) return false
    if (wanted !== '+' && !isIn(topic[index], wanted)) return false
  }
  return depth === filter.length
}

/**
 * Whether the rule's levels contain the requested ones, which come from `splitFilter`. With `widen` a `+` counts as
 * contained in a set level, because each delivery will be decided on; a `#` that begins at a set level never does.
 */
export function levelsCover (allowed, requested, widen) {
  if (requested[0].startsWith('$') && (allowed[0] === '+' || allowed[0] === '#')) return false // MQTT-4.7.2-1
  const depth = requested.length
  for (let index = 0; index < allowed.length; index++) {
    const have = allowed[index]
    if (have === '#') return true
    if (index === depth) return false
    const wanted = requested[index]
    if (wanted === '#') return false
    if (have === '+') continue
    if (wanted === '+') {
      if (!widen || typeof have === 'string') return false
    } else if (!isIn(wanted, have)) {
      return false
    }
  }
  return depth === allowed.length
}

/** Whether a topic exists that matches both; only `a` may have set levels, which share one with every wildcard. */
export function levelsOverlap (a, b) {
  if (typeof a[0] === 'string' && a[0].startsWith('$') && (b[0] === '+' || b[0] === '#')) return false
  if (b[0].startsWith('$') && (a[0] === '+' || a[0] === '#')) return false // MQTT-4.7.2-1
  const shorter = Math.min(a.length, b.length)
  for (let index = 0; index < shorter; index++) {
    const have = a[index]
    const wanted = b[index]
    if (have === '#' || wanted === '#') return true
    if (have !== '+' && wanted !== '+' && !isIn(wanted, have)) return false
  }
  if (a.length > b.length) return a[b.length] === '#'
  return a.length === b.length || b[a.length] === '#'
}

function isText (text) {
  return text !== '' && !FORBIDDEN.test(text) && (text.length <= MAX_BYTES / 4 || Buffer.byteLength(text) <= MAX_BYTES)
}

function isIn (literal, level) {
  return typeof level === 'string' ? literal === level : level.keys.has(literal)
}
