"""A small prediction server that speaks what nodes ask (docs/endpoint.md): for demos, tests and who has no other."""
