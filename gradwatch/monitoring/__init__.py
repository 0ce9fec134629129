"""For operators: the table of metrics and the alerting rules made from it. No torch."""
