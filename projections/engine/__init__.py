"""The projector's work: events are read from a feed and folded into the tables of builds."""
