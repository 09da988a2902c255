"""The door for Python, over `api/`: what `import vggc` gives."""
