/*
 * Where an open file is, beside the path it was opened by. No Python in it: it runs without the interpreter's lock.
 */

#ifndef TWISTED_INGEST_LOOK_H
#define TWISTED_INGEST_LOOK_H

#include <errno.h>
#include <sys/stat.h>

#define MOST_BUFFERS 1024 /* of one writev: UIO_MAXIOV, and IOV_MAX in target.py */

struct sight {
    long long size; /* -1 where nothing is open */
    long long links;
    int is_here;
};

static struct sight look_at(int descriptor, const char *path)
{
    struct stat open, named;
    struct sight sight = {-1, 0, 0};

    if (fstat(descriptor, &open) < 0)
        return sight; /* a stale handle of a network file system, whose server has removed the file; or none is open */
    sight.size = open.st_size;
    sight.links = (long long)open.st_nlink;
    if (stat(path, &named) == 0)
        sight.is_here = named.st_ino == open.st_ino && named.st_dev == open.st_dev;
    else
        sight.is_here = errno != ENOENT && errno != ENOTDIR; /* not to be looked at for the moment, nor to be opened */
    return sight;
}

#endif
