/* How many processors a process may keep busy, by the rules of vggc_runtime/processors.py. */
#ifndef VGGC_PROCESSORS_H
#define VGGC_PROCESSORS_H

/* The processors that the calling thread may run on, and of their time what the quota of its
   control groups leaves it, rounded up; one at least. `root` stands before the paths of the
   system's files, and is "" but in tests. */
static int num_processors(const char *root);

/* The physical cores that the calling thread may keep busy, one at least. Two threads of one core
   share its arithmetic, so they count once; where the system tells no topology, as in many virtual
   machines, every processor counts. */
static int num_cores(const char *root);

#endif
