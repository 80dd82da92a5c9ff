// The way to the service: short requests, and one long request whose answer never ends, the event stream.
//
// Questions and reports have connections of their own: the service may keep a CONNECT waiting until it has been told
// that an order is done, and however many wait, that report must find a way.

import http from 'node:http'
import https from 'node:https'
import { StringDecoder } from 'node:string_decoder'

const MAX_LINE = 64 * 1024 * 1024 // characters; a ground of a million things is about 40 MiB
const MAX_ANSWER = 64 * 1024 * 1024
const SILENCE_MS = 12_000 // the service says something every 4 s

/** The service did not answer, or not with what was asked for. It holds no secret. */
export class Unavailable extends Error {}

export class Service {
  constructor ({ url, name, secret, timeoutMs, tls }) {
    const base = new URL(url)
    if (base.protocol !== 'http:' && base.protocol !== 'https:') {
      throw new TypeError('the url of authsvc must begin with http:// or https://')
    }
    this.path = `${base.pathname.replace(/\/+$/, '')}/hooks/${encodeURIComponent(name)}/`
    this.timeoutMs = timeoutMs
    this.module = base.protocol === 'https:' ? https : http
    const kept = { keepAlive: true, timeout: 15_000, ...tls }
    this.asking = new this.module.Agent({ ...kept, maxSockets: 64 })
    this.telling = new this.module.Agent(kept) // a few at once by themselves
    this.options = {
      protocol: base.protocol,
      hostname: base.hostname.replace(/^\[|\]$/g, ''),
      port: base.port || undefined,
      headers: secret ? { authorization: `Bearer ${secret}` } : {}
    }
    this.tls = tls
  }

  /** Ask about a CONNECT: post an object and return the one that is answered. Rejects with Unavailable, in time. */
  ask (path, body) {
    return this.#post(this.asking, path, body)
  }

  /** Report: as `ask`, and never behind it. */
  tell (path, body) {
    return this.#post(this.telling, path, body)
  }

  async #post (agent, path, body) {
    const text = Buffer.from(JSON.stringify(body))
    const headers = { ...this.options.headers, 'content-type': 'application/json', 'content-length': text.length }
    const signal = AbortSignal.timeout(this.timeoutMs)
    const options = { ...this.options, path: this.path + path, method: 'POST', headers, signal }
    try {
      return await this.#answer({ ...options, agent }, text)
    } catch (error) {
      if (!isStale(error) || signal.aborted) throw unavailable(error, signal)
    }
    // The service closed an idle connection at the moment that it was used again: nothing was read of the request.
    try {
      return await this.#answer({ ...options, agent: false, ...this.tls }, text)
    } catch (error) {
      throw unavailable(error, signal)
    }
  }

  #answer (options, text) {
    return new Promise((resolve, reject) => {
      const request = this.module.request(options, (response) => {
        const chunks = []
        let size = 0
        response.on('data', (chunk) => {
          size += chunk.length
          if (size > MAX_ANSWER) request.destroy(new Error('the answer is too long'))
          else chunks.push(chunk)
        })
        response.on('error', reject)
        response.on('end', () => {
          if (response.statusCode !== 200) return reject(new Error(`the service answered ${response.statusCode}`))
          try {
            const value = JSON.parse(Buffer.concat(chunks).toString('utf8'))
            if (typeof value !== 'object' || value === null) throw new Error('no object')
            resolve(value)
          } catch {
            reject(new Error('the service did not answer with JSON'))
          }
        })
      })
      request.on('error', (error) => reject(Object.assign(error, { reused: request.reusedSocket })))
      request.end(text)
    })
  }

  /**
   * Open the event stream: `onEvent(object)` for each line, `onEnd(Error)` once. Returns a function that closes it.
   * A line that is no JSON object, or that is too long, ends the stream, and so does silence.
   */
  events (query, onEvent, onEnd) {
    let over = false
    let silence
    const end = (error) => {
      if (over) return
      over = true
      clearTimeout(silence)
      request.destroy()
      onEnd(error)
    }
    const heard = () => {
      clearTimeout(silence)
      silence = setTimeout(end, SILENCE_MS, new Unavailable('the event stream fell silent'))
    }
    const request = this.module.request(
      // a connection of its own, that nobody waits for
      { ...this.options, agent: false, ...this.tls, path: `${this.path}events?${new URLSearchParams(query)}` },
      (response) => {
        if (response.statusCode !== 200) {
          return end(new Unavailable(`the event stream was answered ${response.statusCode}`))
        }
        const decoder = new StringDecoder('utf8')
        let pending = []
        let length = 0
        response.on('data', (chunk) => {
          heard()
          const lines = decoder.write(chunk).split('\n')
          const rest = lines.pop()
          for (const line of lines) {
            const whole = pending.length > 0 ? pending.join('') + line : line
            pending = []
            length = 0
            if (over) return
            let event
            try {
              event = JSON.parse(whole)
            } catch {
              return end(new Unavailable('a line of the event stream is no JSON'))
            }
            try {
              onEvent(event)
            } catch (error) {
              return end(new Unavailable(`an event could not be used: ${error.message}`))
            }
          }
          if (rest !== '') {
            pending.push(rest)
            length += rest.length
            if (length > MAX_LINE) end(new Unavailable('a line of the event stream is too long'))
          }
        })
        response.on('error', end)
        response.on('end', () => end(new Unavailable('the event stream ended')))
        response.on('close', () => end(new Unavailable('the event stream was cut')))
      })
    request.on('error', (error) => end(new Unavailable(error.message)))
    request.end()
    heard()
    return () => end(new Unavailable('closed'))
  }

  close () {
    this.asking.destroy()
    this.telling.destroy()
  }
}

function isStale (error) {
  return error.reused === true && (error.code === 'ECONNRESET' || error.code === 'EPIPE')
}

function unavailable (error, signal) {
  return new Unavailable(signal.aborted ? 'the service did not answer in time' : error.message)
}
