// Aedes with the agent, and a service of a few lines that says what each test has it say.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import net from 'node:net'
import { test } from 'node:test'
import { Aedes } from 'aedes'
import { attach } from '../index.js'
import { Live } from '../lib/live.js'

const ANSWER = {
  result: 'allow',
  rev: 1,
  session: 's1',
  client_id: 'c',
  epoch: 'e',
  etag: 'x',
  expires_in_ms: null,
  grant: {
    publish: [{ rule: 'p', allow: true, levels: ['t', '#'], qos_max: 2, retain: null }],
    subscribe: [{ rule: 's', allow: true, levels: ['t', '#'], qos_max: 2, retain: null }],
    sets: {}
  }
}
const CONNECT = packet(0x10, [0, 4, ...Buffer.from('MQTT'), 4, 2, 0, 0, 0, 1, 0x63]) // clean, client id `c`

function packet (type, body) {
  return Buffer.from([type, body.length, ...body])
}

async function rig (t, answer, { reported = () => {}, ...more } = {}) {
  const asked = []
  const streams = []
  const service = http.createServer(async (request, response) => {
    if (request.url.includes('/events')) {
      streams.push(response)
      return response.write('{"type":"hello","epoch":"e"}\n')
    }
    let body = ''
    for await (const chunk of request) body += chunk
    asked.push({ path: request.url, authorization: request.headers.authorization, body: JSON.parse(body) })
    if (!request.url.endsWith('/connect')) {
      await reported(asked.at(-1).body)
      return response.end('{"result":"ok"}')
    }
    const given = typeof answer === 'function' ? await answer(JSON.parse(body)) : answer
    if (typeof given === 'number') response.statusCode = given
    response.end(typeof given === 'string' ? given : JSON.stringify(given))
  }).listen(0, '127.0.0.1')
  await once(service, 'listening')
  const broker = await Aedes.createBroker()
  const url = `http://127.0.0.1:${service.address().port}`
  const agent = attach(broker, { url, secret: 'a secret of the test', timeoutMs: 300, ...more })
  const server = net.createServer(broker.handle).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    agent.close()
    server.close()
    service.close()
    service.closeAllConnections()
    return new Promise((resolve) => broker.close(resolve))
  })
  const open = async (...bytes) => {
    const socket = net.connect(server.address().port, '127.0.0.1')
    socket.on('error', () => {})
    t.after(() => socket.destroy())
    socket.write(Buffer.concat([CONNECT, ...bytes]))
    return socket
  }
  const connack = async (socket) => {
    const [data] = await once(socket, 'data')
    assert.equal(data[0], 0x20)
    return data[3]
  }
  const say = (event) => streams.at(-1).write(JSON.stringify(event) + '\n')
  const until = async (condition) => {
    for (let tries = 0; !condition(); tries++) {
      assert.ok(tries < 500, 'it did not come to that')
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }
  return { broker, agent, asked, streams, open, connack, say, until }
}

test('the service is asked once, with its secret and without the payload of the will', async (t) => {
  const { asked, open, connack } = await rig(t, ANSWER)
  assert.equal(await connack(await open()), 0)
  const questions = asked.filter(({ path }) => path === '/hooks/aedes/connect')
  assert.equal(questions.length, 1)
  assert.equal(questions[0].authorization, 'Bearer a secret of the test')
  assert.equal(questions[0].body.client_id, 'c')
})

const REFUSALS = {
  'a denial': [{ result: 'deny', reason: 'unknown_token', code: 4 }, 4],
  'a denial without a code': [{ result: 'deny' }, 5],
  'a denial with a code that says yes': [{ result: 'deny', code: 0 }, 5],
  'an answer of nothing': [{}, 5],
  'no JSON': ['allow', 3],
  'a list': [[], 5],
  null: [null, 3],
  'a redirection': [302, 3],
  'an error': [503, 3],
  'no grant': [{ ...ANSWER, grant: undefined }, 3],
  'half a grant': [{ ...ANSWER, grant: { ...ANSWER.grant, subscribe: undefined } }, 3],
  'no session': [{ ...ANSWER, session: undefined }, 3],
  'no number': [{ ...ANSWER, rev: '1' }, 3],
  'no expiry': [{ ...ANSWER, expires_in_ms: undefined }, 3],
  silence: [() => new Promise(() => {}), 3]
}
for (const [name, [answer, code]] of Object.entries(REFUSALS)) {
  test(`${name} refuses the CONNECT with ${code}`, async (t) => {
    const { broker, open, connack } = await rig(t, answer)
    assert.equal(await connack(await open()), code)
    assert.deepEqual(Object.keys(broker.clients), [])
  })
}

test('a connection that is lost while it waits touches nothing of the client id', async (t) => {
  let answered
  const { broker, open } = await rig(t, () => new Promise((resolve) => { answered = () => resolve(ANSWER) }))
  await broker.persistence.incomingStorePacket({ id: 'c' }, { messageId: 7, topic: 't/x', payload: Buffer.alloc(0), qos: 2 })
  const socket = await open()
  while (answered === undefined) await new Promise((resolve) => setImmediate(resolve))
  socket.resetAndDestroy()
  await new Promise((resolve) => setTimeout(resolve, 50))
  answered()
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.ok(await broker.persistence.incomingGetPacket({ id: 'c' }, { messageId: 7 }))
  assert.deepEqual(Object.keys(broker.clients), [])
})

test('a connection that is refused touches nothing of the client id', async (t) => {
  const { broker, open, connack } = await rig(t, { result: 'deny', code: 5 })
  await broker.persistence.incomingStorePacket({ id: 'c' }, { messageId: 7, topic: 't/x', payload: Buffer.alloc(0), qos: 2 })
  const socket = await open()
  assert.equal(await connack(socket), 5)
  if (!socket.destroyed) await once(socket, 'close')
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.ok(await broker.persistence.incomingGetPacket({ id: 'c' }, { messageId: 7 }))
})

test('what comes in a second chunk while the service is asked is not handled before its answer', async (t) => {
  let answered
  const { broker, open, connack } = await rig(t, () => new Promise((resolve) => { answered = () => resolve(ANSWER) }))
  const published = []
  broker.on('publish', ({ topic }) => published.push(topic))
  const socket = await open()
  while (answered === undefined) await new Promise((resolve) => setImmediate(resolve))
  for (let number = 0; number < 3; number++) {
    socket.write(packet(0x30, [0, 3, ...Buffer.from('t/x')]))
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  assert.deepEqual(published.filter((topic) => !topic.startsWith('$SYS')), [])
  answered()
  assert.equal(await connack(socket), 0)
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.deepEqual(published.filter((topic) => !topic.startsWith('$SYS')), ['t/x', 't/x', 't/x'])
})

test('a will that a lost broker left is not sent, and does not end the process', async (t) => {
  const { broker, agent, open, connack } = await rig(t, ANSWER)
  await connack(await open())
  for (const client of [null, broker.clients.c]) { // whoever has the client id now need not be whose will it is
    const will = { topic: 't/x', payload: Buffer.from('boom'), qos: 1, retain: true, clientId: 'c', brokerId: 'other' }
    const denied = once(agent, 'denied')
    await new Promise((resolve, reject) => {
      broker.authorizePublish(client, will, (error) => error ? reject(error) : resolve())
    })
    assert.equal((await denied)[0].action, 'will')
    assert.ok(will.topic.startsWith('$SYS/'))
    assert.equal(will.payload.length, 0)
    assert.equal(will.retain, false)
  }
})

test('the live connections are named after each greeting, and when they are asked for', async (t) => {
  const { asked, streams, open, connack, say, until } = await rig(t, ANSWER)
  await connack(await open())
  const named = () => asked.filter(({ body }) => body.sessions?.length).map(({ body }) => body.sessions)
  const whole = () => asked.filter(({ body }) => body.last === true).length
  await until(() => whole() >= 1) // of the greeting, which came before the connection or after it
  let before = named().length
  say({ type: 'compare' })
  await until(() => named().length > before)
  before = named().length
  const ended = whole()
  streams.at(-1).destroy()
  await until(() => named().length > before && whole() > ended)
  for (const sessions of named()) assert.deepEqual(sessions, [['c', 's1', 'x']])
})

test('an end that was ordered before the admission does not mean it', async (t) => {
  const { broker, open, connack, say, until } = await rig(t, { ...ANSWER, rev: 10 })
  const socket = await open()
  assert.equal(await connack(socket), 0)
  say({ type: 'end', client_id: 'c', rev: 9, will: 'never', wipe: false })
  say({ type: 'end', client_id: 'd', rev: 11, will: 'never', wipe: false })
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal(broker.clients.c.closed, false)
  say({ type: 'end', client_id: 'c', rev: 11, will: 'never', wipe: false })
  await until(() => broker.clients.c === undefined)
})

test('an end that overtakes the answer ends the connection that it means', async (t) => {
  let answered
  const { broker, open, connack, say, until } = await rig(t, () => new Promise((resolve) => { answered = () => resolve(ANSWER) }))
  const socket = await open()
  await until(() => answered !== undefined)
  say({ type: 'end', client_id: 'c', rev: 2, will: 'never', wipe: false })
  await new Promise((resolve) => setTimeout(resolve, 50))
  answered()
  assert.equal(await connack(socket), 5)
  assert.deepEqual(Object.keys(broker.clients), [])
})

test('a grant that overtakes the answer is the one that holds', async (t) => {
  let answered
  const { broker, open, connack, say, until } = await rig(t, () => new Promise((resolve) => { answered = () => resolve(ANSWER) }))
  const socket = await open()
  await until(() => answered !== undefined)
  const grant = { ...ANSWER.grant, subscribe: [] }
  say({ type: 'grant', client_id: 'c', session: 's1', was: 's1', rev: 2, etag: 'y', expires_in_ms: null, epoch: 'e', grant })
  await new Promise((resolve) => setTimeout(resolve, 50))
  answered()
  assert.equal(await connack(socket), 0)
  assert.equal(broker.authorizeForward(broker.clients.c, { topic: 't/x', qos: 0 }), null)
})

test('a connection ends with its grant, also while nobody can say so', async (t) => {
  const { broker, open, connack, streams, until } = await rig(t, { ...ANSWER, expires_in_ms: 200 })
  assert.equal(await connack(await open()), 0)
  streams[0].destroy()
  await until(() => broker.clients.c === undefined)
})

// The service answers who left only when an order that is under way for him is done, and a CONNECT of his likewise.
test('an answer to an order waits for no other notice', async (t) => {
  const never = new Promise(() => {})
  const { asked, open, connack, say, until } = await rig(t, ANSWER, {
    timeoutMs: 60_000, reported: ({ gone = [] }) => gone.length > 0 ? never : null
  })
  assert.equal(await connack(await open()), 0)
  say({ type: 'end', client_id: 'c', rev: 2, will: 'never', wipe: false })
  await until(() => asked.some(({ body }) => body.gone?.[0]?.session === 's1'))
  say({ type: 'end', client_id: 'c', rev: 3, will: 'never', wipe: true, call: 7 })
  await until(() => asked.some(({ body }) => body.done?.[0]?.call === 7))
})

const HOOK_BYTES = 256 * 1024 // what the service takes of one request
const LONGEST = '\u0001'.repeat(256) // a client id of MQTT may hold that, and JSON writes six characters for each

test('what a client holds is not counted for each filter of a long SUBSCRIBE', async (t) => {
  const { agent } = await rig(t, ANSWER, { maxSubscriptions: 3 })
  let counted = 0
  const held = new Proxy({ 't/1': {}, 't/2': {} }, {
    ownKeys: (target) => {
      counted += 1
      return Reflect.ownKeys(target)
    }
  })
  const client = { subscriptions: held, connected: true }
  const live = new Live(client, { session: 's', clientId: 'c', epoch: 'e', rev: 1 })
  live.hold(agent.grantOf(ANSWER.grant), 'x', null, () => {})
  agent.byClient.set(client, live)
  const granted = (topic) => {
    let answer
    agent.checks.authorizeSubscribe(client, { topic, qos: 0 }, (error, subscription) => { answer = !error && subscription !== null })
    return answer
  }
  assert.ok(granted('t/3'))
  held['t/3'] = {}
  for (let n = 4; n < 1_000; n++) assert.ok(!granted(`t/${n}`))
  assert.ok(granted('t/1')) // it has that one
  assert.equal(counted, 2)
  await new Promise((resolve) => setImmediate(resolve))
  delete held['t/3']
  assert.ok(granted('t/4'))
})

test('no report is longer than the service takes, whatever client ids and topics are', async (t) => {
  const { agent, asked, say, until } = await rig(t, ANSWER)
  await until(() => asked.some(({ body }) => body.last))
  asked.length = 0
  const ids = Array.from({ length: 500 }, (_, n) => `${n}`.padStart(3, '0') + LONGEST.slice(3))
  for (const clientId of ids) {
    const session = `session of ${clientId.slice(0, 3)}`
    agent.lives.set(clientId, { state: 'live', clientId, session, etag: 'e'.repeat(80) })
    agent.notices.left({ clientId, session }, true)
    agent.notices.deny({ clientId, session }, 'publish', LONGEST, { reason: 'no_rule_matches', rule: null })
  }
  const told = (name) => asked.flatMap(({ body }) => body[name] ?? [])
  say({ type: 'compare' })
  await until(() => asked.some(({ body }) => body.last) && told('gone').length >= 500 && told('denied').length >= 500)
  for (const { body } of asked) assert.ok(Buffer.byteLength(JSON.stringify(body)) <= HOOK_BYTES)
  assert.deepEqual(told('sessions').map(([clientId]) => clientId), ids)
  assert.deepEqual(told('gone').map(({ client_id: clientId }) => clientId), ids)
})

test('a topic that is cut for a report is still text', async (t) => {
  const { agent, asked, until } = await rig(t, ANSWER)
  const topic = 'a'.repeat(255) + '\u{1f600}' // half of which the service would not take, and nothing beside it
  agent.notices.deny({ clientId: 'c', session: 's' }, 'publish', topic, { reason: 'no_rule_matches', rule: null })
  const told = () => asked.flatMap(({ body }) => body.denied ?? [])
  await until(() => told().length > 0)
  assert.ok(told()[0].topic.isWellFormed())
  assert.ok(told()[0].topic.startsWith('a'.repeat(255)))
})

test('however many wait for the answer to their CONNECT, an order is answered', async (t) => {
  const { asked, open, say, until } = await rig(t, () => new Promise(() => {}), { timeoutMs: 60_000 })
  const waiting = () => asked.filter(({ path }) => path.endsWith('/connect')).length
  for (let number = 0; number < 80; number++) await open()
  await until(() => waiting() === 64)
  say({ type: 'end', client_id: 'c', rev: 1, will: 'never', wipe: true, call: 8 })
  await until(() => asked.some(({ body }) => body.done?.[0]?.call === 8))
})

test('handlers that were there before may refuse more', async (t) => {
  const { broker, open, connack } = await rig(t, ANSWER)
  const socket = await open()
  assert.equal(await connack(socket), 0)
  assert.equal(broker.authorizeForward(broker.clients.c, { topic: 'u/x', qos: 0 }), null)
  const packet = { topic: 't/x', qos: 0 }
  assert.equal(broker.authorizeForward(broker.clients.c, packet), packet)
})

test('an agent that was closed lets nobody in', async (t) => {
  const { agent, open, connack } = await rig(t, ANSWER)
  agent.close()
  assert.equal(await connack(await open()), 3)
})

test('options that mean nothing are refused', async () => {
  const broker = await Aedes.createBroker()
  assert.throws(() => attach(broker, { url: 'ftp://x' }), TypeError)
  assert.throws(() => attach(broker, { url: 'http://x', onDeniedPublish: 'ignore' }), TypeError)
  await new Promise((resolve) => broker.close(resolve))
})
