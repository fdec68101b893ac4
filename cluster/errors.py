"""What can go wrong in consensus, as seen by the rooms above."""


class ClusterError(Exception):
    """The base of everything this room raises on purpose."""


class NotLeader(ClusterError):
    """This node does not lead; ask the leader, or wait for one."""


class Overloaded(ClusterError):
    """More is in flight than the cluster accepts; try again later. Nothing was proposed."""


class Unreachable(ClusterError):
    """The other node could not be asked, or did not answer in time; nothing is known of the outcome."""


class NoQuorum(ClusterError):
    """No majority confirmed in time; nothing was read or changed."""


class CannotListen(ClusterError):
    """The address for the other nodes cannot be had; try again once it is free. Nothing was changed here."""


class JoinRefused(ClusterError):
    """The cluster did not take this node; the text says why, and nothing was changed."""


class NotAlone(ClusterError):
    """Other nodes are members, and this is done only by the only one; nothing was changed."""


class Removed(ClusterError):
    """This node is no member of the cluster any more."""


class RemovalRefused(ClusterError):
    """This member cannot be removed, or lose its vote; the text says why, and nothing was changed."""


class StatementRefused(ClusterError):
    """What a node says about itself is not believed; the text says why, and nothing was changed."""


class RecoveryRefused(ClusterError):
    """This node cannot be made a cluster of its own; the text says why, and nothing was changed."""


class WrongDirectory(ClusterError):
    """The data directory belongs to another node than the one that was started on it."""


class DiskFailed(ClusterError):
    """What had to be stored could not be; what the disk holds is unknown until a restart."""
