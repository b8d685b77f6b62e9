# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a client bundle that are read, copied or pasted: its README and snippets for CI systems.

``@NAME@`` stands for what :func:`scripts.render` puts there.
"""

from __future__ import annotations

# inputs and variables: docker/setup-buildx-action (README, "BUILDER_NODE_<idx>_AUTH_TLS_*"), node 0 being the first
GITHUB = """\
# GitHub Actions on the pool @POOL@. Store the files as secrets of the repository first:
#   gh secret set BUILDKIT_CA <ca.pem; gh secret set BUILDKIT_CERT <cert.pem; gh secret set BUILDKIT_KEY <key.pem
# The certificate ends on @NOT_AFTER@; set them again from the next bundle before that.
name: image
on: [push]
jobs:
  image:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v5
      - uses: docker/setup-buildx-action@v4
        with:
          name: @BUILDER@
          driver: remote
@GITHUB_NODES@
        env:
@GITHUB_SECRETS@
      - run: docker buildx build .
"""

GITLAB = """\
# GitLab CI on the pool @POOL@. Make three variables of type "File" first, protected and not expanded: BUILDKIT_CA,
# BUILDKIT_CERT and BUILDKIT_KEY, with the contents of ca.pem, cert.pem and key.pem. They end on @NOT_AFTER@.
build-image:
  stage: build
  image:
    name: moby/buildkit:rootless
    entrypoint: [""]
  variables:
    BUILDKIT_HOST: "@FIRST@"
@GITLAB_ALPN@  script:
    - >-
      buildctl --tlscacert "$BUILDKIT_CA" --tlscert "$BUILDKIT_CERT" --tlskey "$BUILDKIT_KEY"@SERVER_NAME@
      build --frontend dockerfile.v0 --local context=. --local dockerfile=. --progress plain
"""

JENKINS = """\
// Jenkins on the pool @POOL@, with the plugins Docker Commons and Credentials Binding, and buildctl on the agent.
// Make a credential of the kind "X.509 Client Certificate" with the ID @CREDENTIAL@ first:
// client key from key.pem, client certificate from cert.pem, server CA certificate from ca.pem.
// It ends on @NOT_AFTER@.
pipeline {
  agent any
  stages {
    stage('Image') {
      steps {
        withCredentials([dockerCert(credentialsId: '@CREDENTIAL@', variable: 'DOCKER_CERT_PATH')]) {
          sh '''
            @JENKINS_ALPN@buildctl --addr "@FIRST@" --tlsdir "$DOCKER_CERT_PATH"@SERVER_NAME@ \\
              build --frontend dockerfile.v0 --local context=. --local dockerfile=. --progress plain
          '''
        }
      }
    }
  }
}
"""

README = """\
# Remote BuildKit: pool @POOL@, client @CLIENT@

Good until **@NOT_AFTER@**. Ask for a new bundle before that, and unpack it over this one: paths stay the same.

Builders:

@DAEMONS@

@KEY@

## Use it

Unpack it where it can stay; docker buildx keeps its path.

```sh
./verify.sh                  # proves each builder from here
. ./env.sh                   # sh, bash and zsh: buildctl and nerdctl build there now
buildctl build --frontend dockerfile.v0 --local context=. --local dockerfile=. --output type=local,dest=out
```

`env.sh` puts `bin/buildctl` first in PATH. It runs the buildctl that you have, with the certificate where the address
is a builder of this pool, and as it is for every other. nerdctl runs buildctl, so it works too.

docker buildx, docker build, docker compose:

```sh
./setup-buildx.sh            # makes: @BUILDERS@; again after each new bundle
docker buildx build --builder @BUILDER@ .
. ./env.sh                   # sets BUILDX_BUILDER, which docker build and docker compose build use
snippets/compose.sh --push   # the same in one command
./remove-buildx.sh
```
@SEVERAL@
## CI and other tools

- `snippets/github-actions.yml`, `snippets/gitlab-ci.yml`, `snippets/Jenkinsfile`: each begins with what to store where.
- `snippets/earthly.sh` prints the part of Earthly's or EarthBuild's `config.yml`. They build only on a daemon of their
  own making, and take `localhost` and `127.0.0.1` for their own daemon.
- Tools that know `BUILDKIT_HOST` and nothing of TLS, such as Dagger 0.2 and Heighliner, fail with "error reading server
  preface: EOF". They need a unix socket here that leads to the builder.

## What to know

- Do not run `docker buildx create` without `--driver` while `BUILDKIT_HOST` is set: it would make a remote builder
  without TLS.
- `docker build` does not follow `docker buildx use`; it follows `BUILDX_BUILDER` and `--builder`.
@ALPN_NOTE@"""
