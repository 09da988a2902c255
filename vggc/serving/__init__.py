"""Compiled nets over HTTP."""
