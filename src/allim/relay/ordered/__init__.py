"""The ordered engine: messages of one key leave one after the other, in bulk, from any relay.

Keys are spread over slots. A relay *incarnation* holds a lease and with it slots; its id fences
everything it writes. Of each slot it reads what has committed, in order, hands it to publishers
and settles what became of it, one turn of a slot at a time. A message that fails stops its
own line (its key) only: it and what follows it are parked and drained in order when it is due.
"""
