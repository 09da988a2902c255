"""What knows no net: text and places, mistakes, files, records, the machine around a process."""
