"""Places whose annotations tell what pictures show: boxes with a class each.

`sources` says what such a place consists of, `layouts` sees it from what lies there, `voc`, `coco`,
`yolo` and `table` read one format each into what is `described`, `upright` makes boxes shares of
pictures that stand upright, and `read` makes a part of it all.
"""
