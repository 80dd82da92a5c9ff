"""Models of brokers that cannot be run here: each asks our hooks in that broker's exact words and applies the answers
by that broker's rules, every one with its source. What all brokers do alike (routing, queues, retained) is `mini`.
"""
