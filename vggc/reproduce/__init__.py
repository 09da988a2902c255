"""The paper's tables, made anew."""
