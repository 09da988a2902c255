#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "processors.h"

#include <limits.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_PROCESSORS 8192 /* that Linux can be built for */

typedef struct {
  cpu_set_t sets[MOST_PROCESSORS / CPU_SETSIZE];
} processor_set;

/* The processors that the calling thread may run on; 0 where nobody tells. */
static int allowed_processors(processor_set *allowed) {
  return !sched_getaffinity(0, sizeof *allowed, allowed->sets);
}

static void remove_processor(processor_set *set, int processor) {
  if (processor >= 0 && processor < MOST_PROCESSORS)
    CPU_CLR_S((size_t)processor, sizeof *set, set->sets);
}

/* Opens the file whose path a format and its arguments give; NULL where there is none. */
__attribute__((format(printf, 1, 2))) static FILE *open_system_file(const char *format, ...) {
  char path[PATH_MAX];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(path, sizeof path, format, arguments);
  va_end(arguments);
  return length < 0 || (size_t)length >= sizeof path ? NULL : fopen(path, "re");
}

/* Reads a whole number behind spaces, and takes no more of the file. Gives 1, or 0 without one.
   fscanf has another name in each generation of C libraries, and is large where it is static. */
static int read_number(FILE *file, long long *number) {
  int letter = getc(file);
  while (letter == ' ' || letter == '\n') letter = getc(file);
  int negative = letter == '-';
  if (negative) letter = getc(file);
  int found = 0;
  for (*number = 0; letter >= '0' && letter <= '9' && *number < LLONG_MAX / 10 - 1; found = 1) {
    *number = 10 * *number + letter - '0';
    letter = getc(file);
  }
  ungetc(letter, file);
  if (negative) *number = -*number;
  return found;
}

/* The whole number that a file begins with; 0 without one. */
static long long number_in(const char *folder, const char *name) {
  long long number = 0;
  FILE *file = open_system_file("%s/%s", folder, name);
  if (!file) return 0;
  if (!read_number(file, &number)) number = 0;
  fclose(file);
  return number;
}

/* The processors' time that one control group may use, of either version; without a limit
   infinity. */
static double limit_of(const char *folder) {
  long long time = 0, period = 0;
  FILE *file = open_system_file("%s/cpu.max", folder);
  if (file) {
    if (!read_number(file, &time) || !read_number(file, &period)) time = 0; /* `max` is no number */
    fclose(file);
  }
  if (time <= 0 || period <= 0) {
    time = number_in(folder, "cpu.cfs_quota_us"); /* -1 is no limit */
    period = number_in(folder, "cpu.cfs_period_us");
  }
  return time > 0 && period > 0 ? (double)time / (double)period : HUGE_VAL;
}

/* The least that a group and those around it may use, up to where they are mounted. In a container
   the group's path may be that of the host: the mount is its own. */
static double limit_within(const char *mount, const char *group) {
  char folder[PATH_MAX];
  double least = limit_of(mount);
  int length = snprintf(folder, sizeof folder, "%s%s", mount, group);
  if (length < 0 || (size_t)length >= sizeof folder) return least;
  while (strlen(folder) > strlen(mount)) {
    double limit = limit_of(folder);
    if (limit < least) least = limit;
    *strrchr(folder, '/') = 0;
  }
  return least;
}

/* Whether a list of names with commas between them has `cpu`. */
static int names_cpu(const char *controllers) {
  for (const char *name = controllers; name; name = strchr(name, ',')) {
    name += *name == ',';
    if (strcspn(name, ",") == 3 && !strncmp(name, "cpu", 3)) return 1;
  }
  return 0;
}

/* How many processors' time a line of /proc/self/cgroup, `number:controllers:group`, leaves. */
static double limit_by_line(const char *root, char *line) {
  char mount[PATH_MAX];
  double least = HUGE_VAL;
  char *controllers = strchr(line, ':');
  char *group = controllers ? strchr(controllers + 1, ':') : NULL;
  if (!group) return least;
  *group++ = 0;
  controllers++;
  group[strcspn(group, "\n")] = 0;
  if (*controllers && !names_cpu(controllers)) return least;
  const char *names[] = {*controllers ? "cpu" : "", *controllers ? controllers : "unified"};
  for (int i = 0; i < 2; i++) {
    int length = snprintf(mount, sizeof mount, "%s/sys/fs/cgroup/%s", root, names[i]);
    if (length < 0 || (size_t)length >= sizeof mount) continue;
    double limit = limit_within(mount, group);
    if (limit < least) least = limit;
  }
  return least;
}

/* How many processors' time the control groups of this process leave it; without a limit
   infinity. */
static double quota(const char *root) {
  double least = HUGE_VAL;
  char *line = NULL;
  size_t size = 0;
  FILE *file = open_system_file("%s/proc/self/cgroup", root);
  if (!file) return least;
  while (getline(&line, &size, file) > 0) {
    double limit = limit_by_line(root, line);
    if (limit < least) least = limit;
  }
  free(line);
  fclose(file);
  return least;
}

static int rounded_up_within(double time, int most) {
  if (time >= most) return most;
  int whole = (int)time;
  whole += whole < time;
  return whole < 1 ? 1 : whole;
}

static int num_processors(const char *root) {
  processor_set allowed;
  int count = allowed_processors(&allowed) ? CPU_COUNT_S(sizeof allowed, allowed.sets) : 1;
  return rounded_up_within(quota(root), count);
}

/* Whether a processor is the first of its core that may be used. The system lists those that share
   a core in order, as in `0,64` or `0-1`. */
static int is_first_of_core(const char *root, int processor, const processor_set *allowed) {
  FILE *file = open_system_file("%s/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                                root, processor);
  if (!file) return 1;
  long long first, last;
  int is_first = 1;
  while (is_first && read_number(file, &first) && first >= 0 && first < processor) {
    int sign = getc(file);
    last = first;
    if (sign == '-') {
      if (!read_number(file, &last)) break;
      getc(file);
    }
    for (long long each = first; each <= last && each < processor; each++)
      if (CPU_ISSET_S((size_t)each, sizeof *allowed, allowed->sets)) is_first = 0;
  }
  fclose(file);
  return is_first;
}

static int num_cores(const char *root) {
  processor_set allowed;
  if (!allowed_processors(&allowed)) return 1;
  int cores = 0;
  for (int each = 0; each < MOST_PROCESSORS; each++)
    if (CPU_ISSET_S((size_t)each, sizeof allowed, allowed.sets))
      cores += is_first_of_core(root, each, &allowed);
  int processors = num_processors(root);
  return cores < processors ? cores : processors;
}
