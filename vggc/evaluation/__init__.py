"""The paper's protocols of testing."""
