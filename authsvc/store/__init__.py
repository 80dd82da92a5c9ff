"""What is remembered: records, changes and upstream sessions, in one SQLite file; PostgreSQL by the same protocol.

A question is one named statement run on a reader: ``store.thing(tenant, key)``; those by a unique key cross over to it
together. A change is a *work*, a function of a transaction that runs its statements, appends its change rows and
returns a value; the writer puts every waiting work into one commit and answers after it. ``database.py`` is the
protocol, ``sqlite.py`` its first engine, ``store.py`` the facade, ``repositories/`` what operators do,
``registration.py`` and ``admission.py`` what a CONNECT writes, ``endings.py`` what ends what.
"""

from authsvc.store.database import Page, StoreState, Written
from authsvc.store.store import Store

__all__ = ["Page", "Store", "StoreState", "Written"]
