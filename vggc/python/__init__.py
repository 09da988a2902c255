"""The entry point for Python, over `api/`: what `import vggc` gives."""
