"""Tests of the service, from the outside: each speaks to a real one in a process of its own."""
