"""Compiled nets without their compiler: what an artifact for a CPU needs where it runs, numpy."""
