"""Compiled nets for other servers than vggc's: the files that these read, and the artifact."""
