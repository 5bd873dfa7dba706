/* SPDX-License-Identifier: BSD-2-Clause
 * VNC where skep was built without libvncserver: whoever asks for it is told. */
#include "host/vnc.h"

#include <stddef.h>

struct vnc *vnc_create(const struct vnc_config *config, struct loop *loop, struct error *err)
{
    error_set(err, "cannot serve VNC", config->where, "this skep was built without libvncserver");
    error_hint(err, "install libvncserver-dev and build skep anew");
    return NULL;
}

void vnc_destroy(struct vnc *vnc) {}

bool vnc_start(struct vnc *vnc, struct screen *screen, struct error *err)
{
    return false;
}

const char *vnc_address(const struct vnc *vnc)
{
    return NULL;
}
