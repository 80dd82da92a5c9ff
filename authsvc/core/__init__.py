"""What is decided, without I/O, clock or randomness of its own: records and times come in as arguments.

    credentials  CONNECT ─► Credential      tokens  secret ─► digest; may the token still be used
    things       token + thing ─► admit, register, bind, or a Refusal
    policy       rules + principal ─► Grant (`grants`, over `index` and `topics`) ─► Decision on a packet

Values are the frozen records of `facts`; a denial carries its word from `reasons`, an accident is one of `errors`.
"""
