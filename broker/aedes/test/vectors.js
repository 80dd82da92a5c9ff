// Compares decisions with those of the core: `node vectors.js FILE`, one grant with its questions and answers a line.
// tests/adapters/test_aedes_decisions.py writes the file.

import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { Grant } from '../lib/grant.js'

let asked = 0
let differ = 0
for await (const line of createInterface({ input: createReadStream(process.argv[2]) })) {
  const { grant: data, questions } = JSON.parse(line)
  const grant = Grant.from(data)
  for (const [action, topic, qos, retain, deliveriesChecked, allowed, reason, rule, granted] of questions) {
    asked += 1
    const answers = [grant.decide(action, topic, { qos, retain, deliveriesChecked })]
    if (action !== 'subscribe') answers.push(grant.memo.decide(action, topic, qos, retain))
    for (const answer of answers) {
      const same = answer.allowed === allowed && answer.reason === reason && answer.rule === rule && answer.qos === granted
      if (same) continue
      differ += 1
      if (differ <= 5) console.error(JSON.stringify({ data, action, topic, qos, retain, deliveriesChecked, answer, allowed, reason, rule, granted }))
    }
  }
}
console.log(JSON.stringify({ asked, differ }))
process.exitCode = differ === 0 ? 0 : 1
