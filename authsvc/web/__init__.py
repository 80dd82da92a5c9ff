"""The HTTP API: probes and the OpenAPI document at the root, the operators' calls under ``/v1``.

    request ─► server (bounds) ─► guard (id, headers) ─► auth (who) ─► routes (may he; the body) ─► admin/… ─► store
    answer  ◄─ models, listing, pages ◄─ the change applied in this process (`Call.settled`) ◄─┘

What goes wrong on the way is raised, and `app` turns it into a problem document (`problems`).
"""
