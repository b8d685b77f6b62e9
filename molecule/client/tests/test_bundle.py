# Copyright (c) 2026 The buildfarm.buildkit authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle on a machine that knows nothing of this collection: each of its tools builds through mTLS."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import yaml

HOME = "/home/bob/R&D <my> bündles"
BUNDLE = f"{HOME}/buildkit-alice"
OLD, NEW = "tcp://172.29.214.11:1234", "tcp://172.29.214.12:1234"
LOCAL = "--local context=project --local dockerfile=project"
BUILD = f"build --no-cache --frontend dockerfile.v0 {LOCAL} --output type=local,dest=project/out"
PATH = "/usr/local/bin:/usr/bin:/bin"


def _worker_id(host, buildctl: str) -> str:
    return json.loads(host.ran(f"{buildctl} debug workers --format '{{{{json .}}}}'"))[0]["id"]


def test_it_is_private(laptop):
    """Whatever the umask, nobody but its owner reaches the key."""
    assert laptop.ran(f"stat -c '%a' '{BUNDLE}' '{BUNDLE}/key.pem'") == "700\n600\n"
    assert laptop.run(f"cat '{BUNDLE}/key.pem'", user="nobody").returncode != 0


def test_age_opens_an_encrypted_bundle(laptop, pki):
    """Debian's age, with the key of SSH that it is for and no other; what is in it builds."""
    names = sorted(path.name for path in (pki / "bundles").glob("*-ci.*"))
    assert names == ["buildkit-ci.tar.gz.age"]
    laptop.put(pki / "bundles" / names[0], "/opt/ci.age", mode="0644")
    laptop.put(pki.parent / "recipient", "/home/bob/recipient")
    laptop.ran("chown bob: /home/bob/recipient && chmod 600 /home/bob/recipient", user="root")
    laptop.ran("mkdir -p .ssh && ssh-keygen -q -t ed25519 -N '' -f other <&- && rm -rf buildkit-ci")
    assert "no identity matched" in laptop.run("age -d -i other /opt/ci.age; rm other*").stderr
    laptop.ran("age -d -i recipient /opt/ci.age | tar -xz && rm recipient")
    assert laptop.ran("stat -c '%a' buildkit-ci buildkit-ci/key.pem") == "700\n600\n"
    laptop.ran(f"buildkit-ci/bin/buildctl --addr {NEW} debug workers && rm -r buildkit-ci")


@pytest.mark.parametrize("shell", ["dash", "bash", "zsh"])
@pytest.mark.parametrize("where", ["/", BUNDLE])
def test_env_finds_its_place_in_every_shell(laptop, shell, where):
    """Sourced from anywhere, env.sh makes buildctl build there; in a subshell too."""
    name = "./env.sh" if where == BUNDLE else f"{BUNDLE}/env.sh"
    said = laptop.ran(
        f"""cd '{where}' && . '{name}' && cd && echo "$BUILDKIT_TLS_DIR" && command -v buildctl && """
        f"""buildctl {BUILD} 2>/dev/null && """
        """ cat project/out/hello.txt && echo "$BUILDKIT_HOSTS" && echo "${BUILDX_BUILDER:-none}" """,
        shell=shell,
    )
    assert said.splitlines() == [BUNDLE, f"{BUNDLE}/bin/buildctl", "hello", f"{OLD} {NEW}", "none"]
    strict = f"""env -i PATH="$PATH" {shell} -euc ". '{name}'; echo \\"\\$BUILDKIT_TLS_DIR\\"" """
    sub = laptop.ran(f"""cd '{where}' && ({strict})""")
    assert sub == f"{BUNDLE}\n"


def test_env_says_when_it_cannot_find_itself(laptop):
    """A copy of env.sh elsewhere sets nothing."""
    done = laptop.run(f"""cp '{BUNDLE}/env.sh' . && . ./env.sh; echo "<${{BUILDKIT_HOST:-}}>"; rm env.sh""")
    assert "change into its directory first" in done.stderr
    assert done.stdout == "<>\n"


def test_the_wrapper_knows_its_builders_and_no_others(laptop):
    """Both builders by BUILDKIT_HOST and by --addr; other addresses and certificates are passed on as they are."""
    wrapper = f"'{BUNDLE}/bin/buildctl'"
    ids = [
        _worker_id(laptop, f"{wrapper} --addr {OLD}"),
        _worker_id(laptop, f"BUILDKIT_HOST={OLD} {wrapper}"),
        _worker_id(laptop, f"{wrapper} --timeout 60 --addr={NEW}"),
        _worker_id(laptop, f"BUILDKIT_HOST={OLD} {wrapper} -addr {NEW}"),
    ]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert _worker_id(laptop, f"{wrapper} --log-format json --addr {OLD}") == ids[0]
    laptop.ran(f"mkdir -p linked && ln -sf '{BUNDLE}/bin/buildctl' linked/buildctl")
    linked = f"PATH=/home/bob/linked:{PATH} buildctl"
    assert _worker_id(laptop, f"{linked} --addr {OLD}") == ids[0]
    for program in (wrapper, linked):
        other = laptop.run(f"{program} --addr tcp://172.29.214.11:99 --timeout 2 debug workers")
        assert "connection refused" in other.stderr
    own = laptop.run(f"{wrapper} --addr {OLD} --tlscacert /nowhere/ca.pem debug workers")
    assert "/nowhere/ca.pem" in own.stderr
    plain = laptop.run(f"buildctl --addr {OLD} --timeout 5 debug workers")
    assert plain.returncode != 0
    none = laptop.run(f"PATH='{BUNDLE}/bin':/usr/bin:/bin buildctl debug workers")
    assert (none.returncode, "there is no buildctl in PATH" in none.stderr) == (127, True)


def test_a_newer_buildctl_reaches_an_older_builder(laptop):
    """buildctl 0.25 wants ALPN, which BuildKit 0.13 does not offer: the wrapper sees to it."""
    refused = laptop.run(f"/opt/new/buildctl --addr {OLD} --tlsdir '{BUNDLE}' debug workers")
    assert "ALPN" in refused.stderr
    for endpoint in (OLD, NEW):
        laptop.ran(f"PATH=/opt/new:{PATH} '{BUNDLE}/bin/buildctl' --addr {endpoint} {BUILD}")
        assert laptop.ran("cat project/out/hello.txt; rm -r project/out") == "hello\n"


def test_verify_proves_each_builder(laptop):
    """It says what it proved, and fails for whom the builders do not know."""
    said = laptop.ran(f"'{BUNDLE}/verify.sh'")
    for endpoint in (OLD, NEW):
        assert f"{endpoint}: ok, it accepts this client, refuses strangers, builds\n" in said
    assert "notAfter=" in said
    stranger = laptop.run(
        f"cd '{BUNDLE}' && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=alice "
        f"-days 1 -addext extendedKeyUsage=clientAuth -keyout key.pem -out cert.pem 2>/dev/null && ./verify.sh"
    )
    assert stranger.returncode == 1
    assert f"{OLD}: FAILED, it does not accept this client" in stranger.stdout


def _setup(laptop, buildx: str, script: str = "setup-buildx.sh") -> str:
    return laptop.ran(f"BUILDX={buildx} '{BUNDLE}/{script}'")


@pytest.mark.parametrize("buildx", ["/opt/buildx-old", "/opt/buildx-new"])
def test_buildx_builds_and_bakes(laptop, buildx):
    """Two generations of docker-buildx, without Docker: set up twice, inspect, build, bake, remove."""
    assert "These builders are ready: buildkit" in _setup(laptop, buildx)
    once = laptop.ran("cat .docker/buildx/instances/buildkit")
    _setup(laptop, buildx)
    assert json.loads(laptop.ran("cat .docker/buildx/instances/buildkit")) == json.loads(once)
    assert [node["Endpoint"] for node in json.loads(once)["Nodes"]] == [OLD, NEW]
    shown = laptop.ran(f"{buildx} inspect --bootstrap buildkit")
    assert re.findall(r"^Status: +(\S+)", shown, re.MULTILINE) == ["running", "running"]
    assert re.findall(r"^Platforms: +(\S+?)\*", shown, re.MULTILINE) == ["linux/amd64", "linux/arm64"]
    for platform in ("linux/amd64", "linux/arm64"):
        out = f"--output type=local,dest=out --platform {platform} ."
        laptop.ran(f"cd project && {buildx} build --no-cache --builder buildkit {out}")
        assert laptop.ran("cat project/out/hello.txt; rm -r project/out") == "hello\n"
    # With env.sh the builder needs no naming.
    allow = "" if buildx.endswith("old") else "--allow=fs.write=. "
    laptop.ran(f"cd project && . '{BUNDLE}/env.sh' && {buildx} bake {allow}--no-cache")
    assert laptop.ran("cat project/baked/hello.txt") == "hello\n"
    assert "buildkit removed" in laptop.ran(f"BUILDX={buildx} '{BUNDLE}/remove-buildx.sh' 2>&1")
    assert laptop.ran("ls .docker/buildx/instances") == ""
    assert "No builder uses" in _setup(laptop, buildx, "remove-buildx.sh")


def test_buildx_state_that_is_in_the_way_is_refused(laptop):
    """A builder of that name with another driver, and a default configuration, end it before anything changes."""
    buildx = "/opt/buildx-old"
    laptop.ran(f"DOCKER_HOST=unix:///nowhere {buildx} create --name buildkit --driver docker-container || true")
    laptop.ran(
        "mkdir -p .docker/buildx/instances && "
        """echo '{"Name":"buildkit","Driver":"docker-container","Nodes":[]}' >.docker/buildx/instances/buildkit"""
    )
    refused = laptop.run(f"BUILDX={buildx} '{BUNDLE}/setup-buildx.sh'")
    assert refused.returncode == 1
    assert "there is a builder buildkit with another driver" in refused.stderr
    assert "docker-container" in laptop.ran(
        "cat .docker/buildx/instances/buildkit; rm .docker/buildx/instances/buildkit"
    )
    laptop.ran("touch .docker/buildx/buildkitd.default.toml")
    refused = laptop.run(f"BUILDX={buildx} '{BUNDLE}/setup-buildx.sh'")
    assert "buildkitd.default.toml" in refused.stderr
    assert laptop.ran("ls .docker/buildx/instances") == ""
    laptop.ran("rm .docker/buildx/buildkitd.default.toml")
    away = laptop.run(f"mv '{BUNDLE}' '{HOME}/a,b' && BUILDX={buildx} '{HOME}/a,b/setup-buildx.sh'")
    assert "cannot use paths with a comma" in away.stderr


def test_nodes_that_left_the_pool_go(laptop):
    """A node that the bundle does not name is taken out of the builder."""
    buildx = "/opt/buildx-new"
    _setup(laptop, buildx)
    options = f"cacert={BUNDLE}/ca.pem,cert={BUNDLE}/cert.pem,key={BUNDLE}/key.pem"
    add = (
        f"--append --name buildkit --node gone --platform linux/riscv64 --driver-opt '{options}' tcp://172.29.214.11:99"
    )
    laptop.ran(f"{buildx} create {add}")
    assert "gone" in laptop.ran("cat .docker/buildx/instances/buildkit")
    _setup(laptop, buildx)
    nodes = json.loads(laptop.ran("cat .docker/buildx/instances/buildkit"))["Nodes"]
    assert [node["Name"] for node in nodes] == ["client-old", "client-new"]


def test_github_actions(laptop):
    """The documented keys of setup-buildx-action, and what the action does with them builds."""
    workflow = yaml.safe_load(laptop.ran(f"cat '{BUNDLE}/snippets/github-actions.yml'"))
    (job,) = workflow["jobs"].values()
    step = next(step for step in job["steps"] if step["uses"].startswith("docker/setup-buildx-action@"))
    assert set(step["with"]) <= {"name", "driver", "endpoint", "platforms", "driver-opts", "append"}
    nodes = [step["with"], *yaml.safe_load(step["with"]["append"])]
    assert step["with"]["driver"] == "remote"
    assert [(node["endpoint"], node["platforms"]) for node in nodes] == [(OLD, "linux/amd64"), (NEW, "linux/arm64")]
    names = {"CACERT": "CA", "CERT": "CERT", "KEY": "KEY"}
    assert step["env"] == {
        f"BUILDER_NODE_{number}_AUTH_TLS_{name}": f"${{{{ secrets.BUILDKIT_{secret} }}}}"
        for number in range(2)
        for name, secret in names.items()
    }
    # As the action does: the contents go to files of its own, named after the endpoint (actions-toolkit, buildx.ts).
    files = {"CACERT": "ca.pem", "CERT": "cert.pem", "KEY": "key.pem"}
    laptop.ran("mkdir -p .docker/buildx/certs")
    for number, node in enumerate(nodes):
        place = f".docker/buildx/certs/{{}}_{node['endpoint'][6:].replace(':', '-')}.pem"
        for name, file in files.items():
            assert f"BUILDER_NODE_{number}_AUTH_TLS_{name}" in step["env"]
            laptop.ran(f"cat '{BUNDLE}/{file}' >{place.format(name.lower())}")
        options = ",".join(f"{name.lower()}=/home/bob/{place.format(name.lower())}" for name in files)
        append = "--append" if number else ""
        laptop.ran(
            f"/opt/buildx-new create {append} --name {step['with']['name']} --driver remote --driver-opt {options} "
            f"--platform {node['platforms']} {node['endpoint']}"
        )
    laptop.ran("cd project && /opt/buildx-new build --no-cache --builder buildkit --output type=local,dest=out .")
    assert laptop.ran("cat project/out/hello.txt") == "hello\n"


def test_gitlab_ci(laptop):
    """The job's script builds, with variables of type File under any name."""
    (job,) = yaml.safe_load(laptop.ran(f"cat '{BUNDLE}/snippets/gitlab-ci.yml'")).values()
    assert job["image"]["entrypoint"] == [""]
    laptop.ran(f"mkdir -p tmp && for f in ca cert key; do cp '{BUNDLE}'/$f.pem tmp/$f.txt; done")
    variables = {f"BUILDKIT_{name.upper()}": f"/home/bob/tmp/{name}.txt" for name in ("ca", "cert", "key")}
    for buildctl in ("/usr/local/bin", "/opt/new"):
        environment = {**variables, **job["variables"], "PATH": f"{buildctl}:/usr/bin:/bin"}
        for line in job["script"]:
            assert "exporting" not in laptop.ran(f"cd project && {line} 2>&1", **environment)
    refused = laptop.run(
        f"cd project && {job['script'][0]}", **{**variables, "BUILDKIT_KEY": "/nowhere"}, **job["variables"]
    )
    assert refused.returncode != 0


def test_jenkins(laptop):
    """dockerCert gives a directory with the names of buildctl's --tlsdir; the step builds with it."""
    text = laptop.ran(f"cat '{BUNDLE}/snippets/Jenkinsfile'")
    assert re.search(r"dockerCert\(credentialsId: 'buildkit-alice', variable: 'DOCKER_CERT_PATH'\)", text)
    (step,) = re.findall(r"sh '''\n(.*?)'''", text, re.DOTALL)
    # Groovy turns a doubled backslash in ''' into one.
    command = step.replace("\\\\", "\\")
    for buildctl in ("/usr/local/bin", "/opt/new"):
        laptop.ran(f"cd project && {command}", DOCKER_CERT_PATH=BUNDLE, PATH=f"{buildctl}:/usr/bin:/bin")


def test_earthly_gets_absolute_paths(laptop):
    """The printed part has the keys of Earthly's global section, and its files exist."""
    settings = yaml.safe_load(laptop.ran(f"'{BUNDLE}/snippets/earthly.sh'"))["global"]
    assert settings.pop("buildkit_host") == OLD
    assert settings.pop("tls_enabled") is True
    assert settings == {f"tls{kind}": f"{BUNDLE}/{kind}.pem" for kind in ("ca", "cert", "key")}
    laptop.ran("test -f " + " -a -f ".join(shlex.quote(path) for path in settings.values()))


def test_compose_builds_with_the_pools_builder(laptop):
    """docker compose builds there, and puts the image into the Docker engine here: the one that runs these hosts."""
    install = "apt-get -qq install -y --no-install-recommends docker-cli docker-compose"
    laptop.ran(f"command -v docker >/dev/null || {install} >/dev/null 2>&1", user="root")
    image = "buildfarm-client-compose"
    services = f"services: {{web: {{build: ., image: {image}}}}}"
    laptop.ran(f"rm -rf shop && cp -r /home/bob/project shop && echo '{services}' >shop/compose.yml", user="root")
    engine = {"DOCKER_HOST": "unix:///opt/docker.sock"}
    build = f"cd shop && '{BUNDLE}/snippets/compose.sh' --no-cache --progress plain 2>&1"
    assert "importing to docker" in laptop.ran(build, user="root", **engine)
    assert "buildkit" in laptop.ran("ls .docker/buildx/instances", user="root")
    assert laptop.ran(
        f"docker image ls -q {image} && docker image rm {image} && rm -r .docker shop", user="root", **engine
    )


def test_a_new_bundle_needs_nothing_but_unpacking(laptop, pki, request):
    """After renewal, unpacked over the old one, buildx uses the new certificate without being set up again."""
    _setup(laptop, "/opt/buildx-new")
    before = laptop.ran(f"openssl x509 -in '{BUNDLE}/cert.pem' -noout -serial")
    state = laptop.ran("cat .docker/buildx/instances/buildkit")
    said = request.getfixturevalue("renewed")
    assert "alice: give this person or machine" in said
    assert "age -d -i KEY buildkit-ci.tar.gz.age | tar -xz && buildkit-ci/verify.sh" in said
    laptop.put(pki / "bundles" / "buildkit-alice.tar.gz", "/opt/bundle.tar.gz", mode="0644")
    laptop.ran(f"tar -xzf /opt/bundle.tar.gz -C '{HOME}'")
    assert laptop.ran(f"openssl x509 -in '{BUNDLE}/cert.pem' -noout -serial") != before
    laptop.ran("cd project && /opt/buildx-new build --no-cache --builder buildkit --output type=local,dest=out .")
    assert laptop.ran("cat .docker/buildx/instances/buildkit") == state
