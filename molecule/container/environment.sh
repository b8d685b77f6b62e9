# shellcheck shell=bash
# The images of the hosts and of the containers in them, as variables for the inventory and the tests. Sourced by
# tools/test.sh; a generation that cannot be had is replaced by the other, as there.
BUILDKIT_HOST_IMAGE=$(python tools/host_image.py --flavour engines) || return
export BUILDKIT_HOST_IMAGE
image_of() { # VARIABLE VERSION FLAVOUR
  local found
  found=$(python tools/buildkit_image.py --generation "$(cut -d. -f1-2 <<<"$2")" --flavour "$3") || return
  export "$1=$found"
}
image_of BUILDKIT_IMAGE_OLD "$BUILDKIT_OLD_VERSION" buildkit &&
  image_of BUILDKIT_IMAGE_NEW "$BUILDKIT_NEW_VERSION" buildkit &&
  image_of BUILDKIT_IMAGE_ROOTLESS "$BUILDKIT_NEW_VERSION" rootless &&
  image_of BUILDKIT_IMAGE_EARTHLY "$BUILDKIT_OLD_VERSION" earthly &&
  image_of BUILDKIT_IMAGE_EARTHBUILD "$BUILDKIT_OLD_VERSION" earthbuild
