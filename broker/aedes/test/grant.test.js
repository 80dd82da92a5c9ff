import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Grant, MalformedGrant } from '../lib/grant.js'
import { KeySet } from '../lib/topics.js'

const rule = (levels, more) => ({ rule: 'r', allow: true, levels, qos_max: 2, retain: null, ...more })
const data = (more) => ({ publish: [], subscribe: [], sets: {}, ...more })

test('nothing is allowed without a rule', () => {
  const grant = Grant.from(data())
  for (const action of ['publish', 'subscribe', 'deliver']) {
    assert.deepEqual(grant.decide(action, 'a'), { allowed: false, reason: 'no_rule_matches', rule: null, qos: 0 })
  }
})

test('an action that nobody knows is an accident, not an answer', () => {
  assert.throws(() => Grant.from(data()).decide('read', 'a'), TypeError)
})

test('a changed set is seen by whatever was remembered', () => {
  const keys = new KeySet(['a'])
  const sets = { member: { id: 'm', rev: 1, keys: [] } }
  const grant = Grant.from(data({ subscribe: [rule(['t', { set: 'member' }])], sets }), () => keys)
  const heard = () => grant.memo.decide('deliver', 't/a', 0, false).allowed
  assert.equal(heard(), true)
  keys.replace(['b'])
  assert.equal(heard(), false)
  keys.replace(['a', 'b'])
  assert.equal(heard(), true)
})

test('what is remembered is bounded, and told apart by QoS and retain flag', () => {
  const grant = Grant.from(data({ publish: [rule(['t', '#'], { qos_max: 1, retain: false })] }))
  for (let number = 0; number < 5_000; number++) grant.memo.decide('publish', `t/${number}`, 0, false)
  assert.ok(grant.memo.size <= 512)
  const reason = (qos, retain) => grant.memo.decide('publish', 't/x', qos, retain).reason
  assert.deepEqual([reason(1, false), reason(2, false), reason(1, true)], ['rule_allows', 'qos_too_high', 'retain_denied'])
})

const MALFORMED = {
  'no object': null,
  list: [],
  'no rules': { publish: [], sets: {} },
  'no sets': { publish: [], subscribe: [] },
  'a rule of nothing': data({ publish: [null] }),
  'no effect': data({ publish: [rule(['a'], { allow: 'false' })] }),
  'no levels': data({ publish: [rule([])] }),
  'a level of a number': data({ publish: [rule([1])] }),
  'an unknown set': data({ publish: [rule([{ set: 'member' }])] }),
  'an inherited set': data({ publish: [rule([{ set: 'constructor' }])] }),
  'a set of numbers': data({ sets: { member: { id: 'm', rev: 1, keys: [1] } } }),
  'another qos': data({ publish: [rule(['a'], { qos_max: 3 })] }),
  'no retain': data({ publish: [rule(['a'], { retain: undefined })] })
}
for (const [name, value] of Object.entries(MALFORMED)) {
  test(`a grant with ${name} is refused as a whole`, () => {
    assert.throws(() => Grant.from(value), MalformedGrant)
  })
}
