export type Action = 'publish' | 'subscribe' | 'deliver'

export interface Decision {
  allowed: boolean
  reason: string
  rule: string | null
  qos: number
}

export class MalformedGrant extends Error {}

export class Grant {
  /** Read a grant from plain data. Throws MalformedGrant. */
  static from (data: unknown): Grant
  decide (
    action: Action,
    topic: string,
    options?: { qos?: number; retain?: boolean; deliveriesChecked?: boolean }
  ): Decision
  readonly version: number
}
