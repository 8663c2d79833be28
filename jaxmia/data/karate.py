"""Zachary's karate club: a toy graph, written out here, which needs no download."""

import numpy as np

from jaxmia.data.types import Graph

__all__ = ["load"]

# Zachary, "An information flow model for conflict and fission in small groups", Journal of Anthropological Research 33,
# 1977: of every member, who of the members after it was a friend outside of the club. Member 1 of the paper is 0 here.
_TIES = {
    0: (1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 17, 19, 21, 31),
    1: (2, 3, 7, 13, 17, 19, 21, 30),
    2: (3, 7, 8, 9, 13, 27, 28, 32),
    3: (7, 12, 13),
    4: (6, 10),
    5: (6, 10, 16),
    6: (16,),
    8: (30, 32, 33),
    9: (33,),
    13: (33,),
    14: (32, 33),
    15: (32, 33),
    18: (32, 33),
    19: (33,),
    20: (32, 33),
    22: (32, 33),
    23: (25, 27, 29, 32, 33),
    24: (25, 27, 31),
    25: (31,),
    26: (29, 33),
    27: (33,),
    28: (31, 33),
    29: (32, 33),
    30: (32, 33),
    31: (32, 33),
    32: (33,),
}
_WITH_THE_INSTRUCTOR = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 16, 17, 19, 21)


def load() -> Graph:
    """34 members, 78 friendships, and whom they followed when the club split; features are one-hot, hence tell nothing.

    The class is the club joined after the split, as in the paper; it differs from the faction of its table in member 9
    of the paper, who sided with the president and followed the instructor.
    """
    edges = np.array([(i, j) for i, others in _TIES.items() for j in others], np.int32)
    labels = np.ones(34, np.int32)
    labels[list(_WITH_THE_INSTRUCTOR)] = 0
    return Graph(np.eye(34, dtype=np.float32), edges, labels, ("instructor", "president"))
