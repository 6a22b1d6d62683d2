"""The protections: by case, where each stands, and what the source would be without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """
    A piece of source that stands once in its file.

    Args:
        file: Below ``fapilog``.
        old: As it is.
        new: As it would be.
    """

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Protection:
    """
    What is done about a case.

    Args:
        case: Its id.
        what: In a few words.
        tests: Of which one has to fail without it.
        changes: What takes it out, all layers of it together.
    """

    case: str
    what: str
    tests: tuple[str, ...]
    changes: tuple[Change, ...]


def of(case: str, what: str, tests: str, *changes: tuple[str, str, str]) -> Protection:
    """Return a protection; *tests* are separated by blanks."""
    return Protection(case, what, tuple(f"tests/{test}" for test in tests.split()), tuple(Change(*change) for change in changes))


COLD_CHILD = (
    "coordinator.py",
    """        self.state = ProcessState(generation=old.generation + 1)
        route.accept = self._accept_cold
        route.renew()
""",
    """        old.pid = os.getpid()
        route.renew()
""",
)
LOCKED = (
    "logger.py",
    """            emit(levelno, level, self._logger.name, event, self._context, fields, self._processors)  # type: ignore[arg-type]
        except RecursionError:
            route.unplaced += 1

    log.__name__""",
    """            lock = __import__("sys").modules.setdefault("lock", __import__("threading").Lock())
            if not lock.acquire(timeout=3):
                __import__("os")._exit(9)
            try:
                emit(levelno, level, self._logger.name, event, self._context, fields, self._processors)
            finally:
                lock.release()
        except RecursionError:
            route.unplaced += 1

    log.__name__""",
)

PROTECTIONS = [
    of(
        "O-FORK-1",
        "a forked child has a cold state of its own",
        "test_forks.py::test_o_fork_1_with_a_sink_that_sleeps",
        COLD_CHILD,
    ),
    of(
        "O-FORK-2",
        "the flush before a fork is short",
        "test_forks.py::test_o_fork_2",
        ("coordinator.py", "time.monotonic() >= state.next_fork_flush and hub.is_behind()", "hub.worker is not None"),
        ("coordinator.py", "hub.flush(FORK_FLUSH, margin=0.0, wait=native.nap)", "hub.flush(1.0, wait=native.nap)"),
    ),
    of(
        "O-FORK-3",
        "a worker that was forked starts a hub of its own at its first event",
        "servers/test_matrix.py::test_an_event_of_the_master_before_the_fork_with_nothing_of_ours_in_the_configuration",
        COLD_CHILD,
    ),
    of("O-FORK-4", "a child uses nothing of its parent's loop", "test_forks.py::test_o_fork_4", COLD_CHILD),
    of("O-DUP-1", "a child inherits no event", "test_forks.py::test_o_dup_1", COLD_CHILD),
    of(
        "O-DUP-2",
        "a record that a handler of ours has taken is not taken again behind the root",
        "servers/test_server_logs.py::test_a_root_handler_of_the_users",
        ("_internal/capture.py", "        if _taken(record):\n            return\n", ""),
        (
            "servers/gunicorn_logger.py",
            "        self.error_log.addHandler(handler)\n",
            "        self.error_log.addHandler(handler)\n        self.error_log.propagate = True\n",
        ),
    ),
    of(
        "O-DUP-3",
        "another set-up ends what the one before has started",
        "test_cases.py::test_o_dup_3",
        (
            "coordinator.py",
            "                hub.drain(max(LEAST_DRAIN, end - time.monotonic()))\n                hub.release()\n",
            "                hub.flush(1.0)\n",
        ),
    ),
    of(
        "O-EXIT-1",
        "the threading module's exit hook, which children of multiprocessing run too",
        "test_multiprocessing.py::test_children_return",
        ("_internal/lifecycle.py", "            register(main_thread_ended)\n", "            pass\n"),
    ),
    of(
        "O-EXIT-2",
        "a worker that is aborted drains before it is killed",
        "servers/test_recycling.py::test_a_request_blocks_its_worker_until_the_timeout",
        ("_internal/arbiter.py", "            lifecycle.drain_before_abort(doors.drain)\n", "            pass\n"),
        ("_internal/arbiter.py", "            also(worker, name, before=doors.hasten)\n", "            pass\n"),
        ("_internal/arbiter.py", "    doors.arm_exits()\n    handler", "    handler"),
    ),
    of(
        "O-EXIT-3",
        "a worker that is recycled delivers and closes",
        "servers/test_recycling.py::test_workers_that_serve_20_requests_each",
        (
            "coordinator.py",
            "        return hub.drain(self._hurried(timeout)) if hub is not None else result_without_hub(self.state, self.spec)\n\n"
            "    async def adrain",
            "        return hub.flush(0.0) if hub is not None else result_without_hub(self.state, self.spec)\n\n    async def adrain",
        ),
    ),
    of(
        "O-EXIT-4",
        "an event that comes when all is over is written at once",
        "test_forks.py::test_o_exit_4",
        (
            "coordinator.py",
            "        return hub.drain(self._hurried(timeout)) if hub is not None else result_without_hub(self.state, self.spec)\n\n"
            "    async def adrain",
            "        return result_without_hub(self.state, self.spec)\n\n    async def adrain",
        ),
    ),
    of(
        "O-HANG-1",
        "a thread that may hang keeps no process alive",
        "test_executor.py::test_a_sink_whose_lookup_hangs_when_the_program_ends",
        ("_internal/native.py", "name=name, daemon=True)", "name=name, daemon=False)"),
    ),
    of(
        "O-HANG-2",
        "a stop that comes again returns when the first has ended",
        "test_log_queue.py::test_two_tasks_stop_at_once_and_a_flush_after_the_stop_returns",
        (
            "_internal/worker.py",
            "        if not self.finished:\n            self.request_stop(timeout)\n",
            "        if True:\n            self.request_stop(timeout)\n",
        ),
    ),
    of(
        "O-FILE-1",
        "a batch is one write",
        "test_sinks.py::test_a_file_gets_one_write_a_batch",
        ("sinks/base.py", "os.write(fd, data[written:])", "os.write(fd, data[written : written + 100])"),
    ),
    of(
        "O-FILE-2",
        "one process alone rotates a file",
        "test_file_processes.py::test_a_shared_path_with_rotation",
        (
            "sinks/home.py",
            "            if self._lock is not None:\n                if number > 1:",
            "            if True:\n                if number > 1:",
        ),
    ),
    of(
        "O-FILE-3",
        "a file whose name leads elsewhere is opened anew",
        "test_sinks.py::test_a_file_that_somebody_renames_and_makes_anew servers/test_rotation.py::test_files_that_are_renamed_under_load",
        ("sinks/written.py", "        return not os.path.samestat(there, os.fstat(self.fd))", "        return False"),
    ),
    of(
        "O-FILE-3",
        "a file that has no name any more is opened anew",
        "test_rotation.py::test_write_now_after_a_rename servers/test_rotation.py::test_files_that_are_renamed_under_load",
        (
            "sinks/written.py",
            "            return stat.S_ISREG(os.fstat(self.fd).st_mode)\n        except OSError:",
            "            return False\n        except OSError:",
        ),
    ),
    of(
        "O-LOOP-1",
        "a backlog is bounded by bytes",
        "test_memory.py::test_an_hour_long_outage",
        ("_internal/delivery.py", "        if self._fits(size):\n            return True\n", "        return True\n"),
    ),
    of(
        "O-LOOP-2",
        "a log call writes nothing itself",
        "test_file_processes.py::test_a_fifo_whose_reader_has_stopped",
        (
            "_internal/starting.py",
            "    synchronous = not spec.settings.queue_enabled or",
            "    synchronous = bool(spec.settings.queue_enabled) or",
        ),
    ),
    of(
        "O-LOOP-3",
        "the hub has a loop of its own",
        "test_cases.py::test_o_loop_3",
        (
            "_internal/hub.py",
            "            loop = self._loop = new_loop()\n            loop.run_until_complete(self._main())\n",
            "            loop = self._loop = asyncio.get_event_loop_policy().get_event_loop()\n            loop.run_until_complete(self._main())\n",
        ),
    ),
    of(
        "O-VAL-1",
        "integers keep all their digits",
        "test_encoding.py::test_integers_of_any_size",
        (
            "_internal/forms.py",
            "        return orjson.Fragment(str(int(value)))\n    bits",
            "        return float(value)\n    bits",
        ),
    ),
    of(
        "O-VAL-2",
        "lone surrogates become escapes",
        "test_encoding.py::test_lone_surrogates",
        (
            "_internal/forms.py",
            'return text.encode("utf-8", "backslashreplace").decode("utf-8")\n\n\ndef bytes_text',
            "return text\n\n\ndef bytes_text",
        ),
    ),
    of(
        "O-VAL-3",
        "nesting is bounded, and a cycle is seen",
        "test_encoding.py::test_a_dict_that_holds_itself test_encoding.py::test_deep_nesting",
        ("_internal/plain.py", "        if identity in self._above:", "        if False:"),
        (
            "_internal/plain.py",
            "        if depth >= MAX_DEPTH:\n            return _cut_mark(value)",
            "        if False:\n            return _cut_mark(value)",
        ),
    ),
    of(
        "O-VAL-4",
        "the plain form of a value is a new object",
        "test_encoding.py::test_the_callers_nested_objects test_hostile_values.py::test_the_callers_nested_objects",
        (
            "_internal/plain.py",
            "        plain: dict[str, Any] = {}\n        names = Names()\n        pairs",
            "        plain: dict[str, Any] = value if type(value) is dict else {}\n        names = Names()\n        pairs",
        ),
    ),
    of(
        "O-VAL-5",
        "a logger that crosses a process line is made anew there",
        "test_structlog_wrapping.py::test_pickling_and_copying test_logger.py::test_pickling",
        ("logger.py", "    copyreg.pickle(type(structlog.get_logger()), _reduced_proxy)\n", "    pass\n"),
        (
            "logger.py",
            "        return _restored, (self.__class__, self._logger, chain, self._context.__class__(self._context))",
            "        return object.__reduce_ex__(self, 2)",
        ),
    ),
    of("O-RE-1", "no lock is taken in a log call", "test_cases.py::test_o_re_1", LOCKED),
    of("O-RE-2", "no lock is taken in a log call", "test_cases.py::test_o_re_2", LOCKED),
    of(
        "O-RE-3",
        "what is logged while an event is delivered is not an event",
        "test_capture.py::test_a_record_made_on_a_thread_of_ours test_loki_hub.py::test_a_client_of_the_same_library",
        ("_internal/native.py", "    return on_own_thread() or writing_now.get()", "    return False"),
    ),
    of(
        "O-CTX-1",
        "a request is in the context of its application",
        "test_context.py::test_two_hundred_requests_at_once",
        ("_internal/exchange.py", "            _REQUEST_ID.set(self.request_id),\n", ""),
    ),
    of(
        "O-CTX-2",
        "a request runs in a context of its own",
        "test_wsgi.py::test_a_thread_that_serves_one_request_after_another",
        ("wsgi.py", "self.context.run(app, environ, starting)", "app(environ, starting)"),
    ),
    of("O-MET-1", "a child has an identity and books of its own", "test_forks.py::test_o_met_1", COLD_CHILD),
    of(
        "O-MET-2",
        "no label changes when a worker is replaced",
        "servers/test_loki_streams.py::test_the_streams_of_many_recycled_workers[16]",
        (
            "sinks/push.py",
            "[*((name, fields[name]) for name in names), *configured.items()]",
            '[("pid", identity.pid), *((name, fields[name]) for name in names), *configured.items()]',
        ),
    ),
    of(
        "O-MET-3",
        "a process that is gone has no gauges",
        "test_metrics.py::test_a_process_that_was_killed test_board.py::test_a_process_that_is_gone",
        ("_internal/overview.py", "    record, alive = seen.record, seen.alive", "    record, alive = seen.record, True"),
    ),
    of(
        "O-IO-1",
        "a torn line is closed before the next one",
        "test_sinks.py::test_a_disk_that_fills_up_and_recovers test_sinks.py::test_a_batch_that_was_given_up_half_way",
        ("sinks/base.py", "        mended = self.torn and not self.cut", "        mended = False"),
    ),
    of(
        "O-IO-2",
        "a directory that is gone is made anew",
        "test_file_processes.py::test_a_directory_that_is_removed_and_made_anew",
        ("sinks/written.py", "        make_directory(Path(name).parent)\n", "        raise\n"),
    ),
    of(
        "O-IO-3",
        "what a console cannot show is escaped",
        "test_console_terminal.py::test_json_on_a_terminal_that_is_ascii",
        ("sinks/terminal.py", '        return _BEYOND_ASCII.sub(_json_escape, text).encode("ascii")', "        return line"),
    ),
    of(
        "O-LOKI-1",
        "what a server refuses is not sent again",
        "test_loki_sink.py::test_a_poisoned_batch",
        ("sinks/loki_answers.py", "    if status in _AGAIN or status >= 500:", "    if status >= 400:"),
    ),
    of(
        "O-LOKI-2",
        "names of labels are cleaned",
        "test_loki_push.py::test_any_name_of_a_label",
        ("sinks/push.py", '    cleaned = _NOT_IN_NAMES.sub("_", name)[:MAX_NAME]', "    return name"),
    ),
    of(
        "O-LOKI-3",
        "the time of an entry holds its seq",
        "test_loki_push.py::test_events_at_the_same_microsecond",
        ("sinks/origins.py", " + int(found[2]) * 1000 + seq % 1000", " + int(found[2]) * 1000"),
    ),
    of(
        "O-LOKI-4",
        "a wait that a server asks for is kept",
        "test_loki_push.py::test_retry_after test_loki_sink.py::test_waits_that_a_server_asks_for",
        ("sinks/answers.py", "        return float(value)\n    wanted", "        return None\n    wanted"),
    ),
    of(
        "O-GUN-1",
        "hooks of the user's run beside ours",
        "servers/test_hooks.py::test_hooks_of_the_users_beside_ours",
        ("servers/gunicorn.py", "        enter_worker(worker)\n        hook(server, worker)\n", "        enter_worker(worker)\n"),
    ),
    of(
        "O-GUN-2",
        "gunicorn's own lines are events, whatever disables its loggers",
        "servers/test_server_logs.py::test_a_port_that_is_taken",
        ("servers/gunicorn_logger.py", "        self.error_log.addHandler(handler)\n", ""),
    ),
    of(
        "O-GUN-3",
        "the access event is made of values, not of a text",
        "servers/test_server_logs.py::test_odd_requests",
        (
            "asgi.py",
            'self.status = message["status"]\n            self._headers',
            'self.status = str(message["status"])\n            self._headers',
        ),
    ),
    of(
        "O-GUN-4",
        "our threads, locks and loop are real ones under gevent",
        "servers/test_recycling.py::test_greenlets_and_native_threads_of_gevent_log",
        (
            "_internal/native.py",
            '    monkey = sys.modules.get("gevent.monkey")\n    return monkey is not None',
            "    monkey = None\n    return monkey is not None",
        ),
        (
            "_internal/native.py",
            "    if monkey is None:\n        return getattr(_MODULES[module], name)",
            "    if True:\n        return getattr(__import__(module), name)",
        ),
    ),
    of(
        "O-STD-1",
        "a value under a name of ours is kept under another one",
        "test_pipeline.py::test_a_field_with_a_name_of_the_hub test_pipeline.py::test_a_field_called_level",
        ("_internal/settling.py", "        fields[kept] = fields.pop(name)", "        fields.pop(name)"),
    ),
    of(
        "O-STD-2",
        "arguments that do not fit are shown beside the text",
        "test_logger.py::test_wrong_positional_arguments",
        (
            "_internal/formatting.py",
            "        return event % args\n    except Exception:\n        return beside(event, args)",
            "        return event % args\n    except ZeroDivisionError:\n        return beside(event, args)",
        ),
    ),
    of(
        "O-STD-3",
        "what takes records stands behind the root, where nobody takes it away",
        "test_capture.py::test_the_roots_handlers_are_taken_away_and_its_level_is_changed",
        (
            "_internal/capture.py",
            "            last.parent = self.listener\n",
            "            logging.root.addHandler(self.listener.handlers[0])\n",
        ),
    ),
    of(
        "O-SEC-1",
        "control characters reach no terminal",
        "test_console.py::test_control_characters",
        ("sinks/terminal.py", "    return _UNSAFE.sub(_escape, text)", "    return text"),
    ),
    of(
        "O-SEC-2",
        "the value of a secret's name is masked",
        "test_redaction.py::test_the_name_of_a_secret",
        (
            "redaction.py",
            "    def is_secret(self, name: object) -> bool:",
            "    def is_secret(self, name: object) -> bool:\n        return False\n\n    def _is_secret(self, name: object) -> bool:",
        ),
    ),
    of(
        "O-CFG-1",
        "a switch is what it says, or an error",
        "test_cases.py::test_o_cfg_1_with_several_wrong_values",
        (
            "_internal/parsing.py",
            '        raise ConfigurationError("must be true or false (also 1/0, yes/no, on/off)")',
            "        return bool(value)",
        ),
    ),
    of(
        "O-CLI-1",
        "a file is known by its inode, not by its name",
        "test_tail.py::test_files_that_are_rotated_twice_between_two_looks test_tail.py::test_workers_that_rotate_under_load",
        (
            "cli/following.py",
            "            return any(source.inode == file.inode for source in self._sources)",
            "            return bool(self._sources)",
        ),
    ),
    of(
        "O-CLI-2",
        "half a line waits for its end",
        "test_tail.py::test_half_a_line_while_it_is_followed",
        (
            "cli/following.py",
            "            if others:\n                last = others.pop()\n",
            '            if True:\n                last = others.pop() if others else b""\n',
        ),
    ),
]
