/* SPDX-License-Identifier: BSD-2-Clause
 *
 * A folder that is given out by HTTP/1.1 (libmicrohttpd), read-only, on a Unix socket that nobody
 * else finds: GET and HEAD of files, also of a range of bytes (RFC 9110, 14). Without libmicrohttpd
 * opening fails and says so.
 */
#ifndef SKEP_HOST_HTTP_FOLDER_H
#define SKEP_HOST_HTTP_FOLDER_H

#include "base/error.h"

struct http_folder;

/* Serves it on a thread of its own. NULL and `err` filled on failure. */
struct http_folder *http_folder_open(const char *folder, struct error *err);
void http_folder_close(struct http_folder *http); /* NULL is fine */

/* The path by which this process, and no other, connects to it; as long as it is open. */
const char *http_folder_socket(const struct http_folder *http);

#endif
