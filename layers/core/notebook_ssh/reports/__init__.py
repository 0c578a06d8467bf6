"""A notebook's report: how it is parsed, when it is accepted, what is replied. Pure."""
