// The program of a pod's sandbox: it holds the pod's namespaces.
module strongroom.testbed/pause

go 1.26.0
