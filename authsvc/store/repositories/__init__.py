"""What operators do to records: one class per kind of record, over the database protocol.

Reads raise `NotFound`; `create` raises `Conflict` (``already_exists``) and `InvalidInput` (``reference_unknown``);
`delete` raises `InUse` with the counts unless `cascade`. Every write returns `Written`: the record after the commit,
and the position of its last change row. Lists are in the order of keys or ids, `q` is a literal part.
"""
