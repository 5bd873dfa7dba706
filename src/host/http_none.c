/* SPDX-License-Identifier: BSD-2-Clause
 * The HTTP folder where skep was built without libmicrohttpd: whoever asks for it is told. */
#include "host/http_folder.h"

#include <stddef.h>

struct http_folder *http_folder_open(const char *folder, struct error *err)
{
    error_set(err, "cannot give out by HTTP", folder, "this skep was built without libmicrohttpd");
    error_hint(err, "install libmicrohttpd-dev and build skep anew");
    return NULL;
}

void http_folder_close(struct http_folder *http) {}

const char *http_folder_socket(const struct http_folder *http)
{
    return NULL;
}
