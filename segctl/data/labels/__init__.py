"""Annotation files (COCO, YOLO, labelme, CVAT, …): one format a file, one set of shapes, one rasteriser."""
