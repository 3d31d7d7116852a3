"""The laws of transforms, on every row of `transform_cases`."""

import copy
import gc
import io
import pickle
import threading
import weakref

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from transform_cases import ABSTRACT, CASES, Scale, flat

import ppl.distributions as dist
from ppl.distributions import constraints
from ppl.distributions import transforms as tr
from ppl.distributions.transforms.fourier import dct

rows = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def law(name):
    """Runs a test on every row that has no reason to skip it."""

    def wrap(test):
        chosen = [case for case in CASES if name not in case.skips]
        return pytest.mark.parametrize("case", chosen, ids=lambda case: case.name)(test)

    return wrap


def close(a, b, tolerance):
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            close(a[key], b[key], tolerance)
        return
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_every_public_transform_has_a_row():
    public = {
        thing
        for thing in (getattr(tr, name) for name in tr.__all__)
        if isinstance(thing, type) and issubclass(thing, torch.distributions.transforms.Transform)
    }
    assert public - {case.cls for case in CASES} == ABSTRACT
    assert all(set(case.skips) <= LAWS for case in CASES)


LAWS = {"inverse", "pseudoinverse", "jacobian", "sets", "shapes", "batch", "dtype", "cache", "copies", "graph", "vmap"}


@law("inverse")
def test_inverse_of_forward_is_the_identity(case):
    t, x = case.build(), case.inputs((5,))
    close(t.inv(t(x)), x, case.tolerance)


@law("inverse")
def test_forward_of_inverse_is_the_identity(case):
    t, x = case.build(), case.inputs((5,))
    y = t(x)
    y = {k: v.clone() for k, v in y.items()} if isinstance(y, dict) else y.clone()
    close(t(t.inv(y)), y, case.tolerance)


@law("pseudoinverse")
def test_forward_of_inverse_of_forward_is_forward(case):
    t, x = case.build(), case.inputs((5,))
    y = t(x)
    close(t(t.inv(y)), y, case.tolerance)
    assert t.inv.inv is t


@law("jacobian")
def test_log_abs_det_jacobian_is_that_of_autograd(case):
    t = case.build()
    domain_dim, codomain_dim = t.domain.event_dim, t.codomain.event_dim
    batch = case.inputs((3,))
    shape = batch.shape[: batch.dim() - domain_dim]
    log_det = t.log_abs_det_jacobian(batch, t(batch))
    assert log_det.shape == shape
    free_x, free_y = case.free_x or flat(domain_dim), case.free_y or flat(codomain_dim)
    if case.event and domain_dim == 0:  # elementwise on vectors
        free_x = free_y = flat(len(case.event))
    for index in torch.cartesian_prod(*(torch.arange(n) for n in shape)).reshape(-1, len(shape)).tolist():

        def forward(event, index=index):
            return t(torch.cat([batch.reshape(-1, *event.shape), event[None]])[-1:].expand(batch.shape))[tuple(index)]

        event = batch[tuple(index)]
        jacobian = torch.autograd.functional.jacobian(lambda e, f=forward: free_y(f(e)), event)
        jacobian = jacobian.reshape(jacobian.shape[0], -1)
        inner = torch.autograd.functional.jacobian(free_x, event).reshape(-1, event.numel())
        if case.is_isometry:
            whole = torch.autograd.functional.jacobian(lambda e, f=forward: f(e).flatten(), event)
            whole = whole.reshape(-1, event.numel())
            expected = 0.5 * torch.linalg.slogdet(whole.T @ whole)[1]
        else:
            # free coordinates of x enter through a right inverse: events that satisfy the domain's equations
            expected = torch.linalg.slogdet(square(jacobian, inner, case))[1]
        torch.testing.assert_close(log_det[tuple(index)], expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(t.inv.log_abs_det_jacobian(t(batch), batch), -log_det)


def square(jacobian, inner, case):
    """The Jacobian between free coordinates; those of x are a selection of its entries, the others follow from them."""
    if case.free_x is None:
        return jacobian
    if inner.shape[1] == inner.shape[0] + 1:  # a simplex: the last entry is what the others leave
        embed = torch.cat([torch.eye(inner.shape[0]), -torch.ones(1, inner.shape[0])])
    else:  # a symmetric matrix: each entry below the diagonal stands above it, too
        size = round(inner.shape[1] ** 0.5)
        embed = inner.T.reshape(size, size, -1)
        off_diagonal = 1 - torch.eye(size)[..., None]
        embed = (embed + embed.transpose(0, 1) * off_diagonal).reshape(size * size, -1)
    return jacobian @ embed


@law("sets")
def test_inputs_lie_in_the_domain_and_outputs_in_the_codomain(case):
    t, x = case.build(), case.inputs((5,))
    y = t(x)
    for constraint, value in ((t.domain, x), (t.codomain, y), (t.domain, t.inv(y))):
        ok = constraint.check(value)
        assert ok.shape == value.shape[: value.dim() - constraint.event_dim]
        assert ok.all()
    assert t.inv.domain.event_dim == t.codomain.event_dim and t.inv.codomain.event_dim == t.domain.event_dim
    assert t.inv.bijective == t.bijective


@law("shapes")
def test_shapes_are_known_without_tensors(case):
    t = case.build()
    for shape in ((), (5,), (4, 1), (0,), (3, 0)):
        x = case.inputs(shape)
        y = t(x)
        assert t.forward_shape(x.shape) == y.shape
        assert t.inverse_shape(y.shape) == x.shape == t.inv(y).shape
        assert t.inv.forward_shape(y.shape) == x.shape and t.inv.inverse_shape(x.shape) == y.shape
        if "jacobian" not in case.skips:
            expected = x.shape[: x.dim() - t.domain.event_dim]
            assert t.log_abs_det_jacobian(x, y).shape == expected


@law("batch")
def test_a_batch_is_as_its_rows(case):
    t, x = case.build(), case.inputs((4,))
    y = t(x)
    for one, image in zip(x, y, strict=True):
        close(t(one), image, 1e-12)
    if "jacobian" not in case.skips:
        rows_of = torch.stack([t.log_abs_det_jacobian(one, t(one)) for one in x])
        close(rows_of, t.log_abs_det_jacobian(x, y), 1e-12)


@law("dtype")
def test_single_precision_stays_single_and_close(case):
    t, x = case.build(torch.float32), case.inputs((5,), torch.float32)
    exact = case.build()
    y = t(x)
    assert y.dtype in (torch.float32, torch.complex64)
    expected = exact(x.double())
    close(y.to(expected.dtype), expected, case.float32_tolerance)
    assert t.inv(y).dtype == torch.float32
    if "jacobian" not in case.skips:
        log_det = t.log_abs_det_jacobian(x, y)
        assert log_det.dtype == torch.float32
        close(log_det.double(), exact.log_abs_det_jacobian(x.double(), expected), case.float32_tolerance)


@law("copies")
def test_pickles_and_deep_copies(case):
    t, x = case.build(), case.inputs((2,))
    expected = t(x)
    t.inv(expected)
    made = [copy.deepcopy(t), copy.copy(t), copy.deepcopy(t.inv).inv]
    if True:
        made += [pickle.loads(pickle.dumps(t)), pickle.loads(pickle.dumps(t.inv)).inv]
    for other in made:
        close(other(x), expected, 1e-12)
        close(other.inv(other(x)), t.inv(t(x)), 1e-12)
        assert other.inv.inv is other
        if isinstance(t, torch.nn.Module):
            assert other != t or other is made[1]
            assert len(list(other.parameters())) == len(list(t.parameters()))
            assert list(other.state_dict()) == list(t.state_dict())
        else:
            assert other == t and hash(other) == hash(t) and other.inv == t.inv
    assert isinstance(repr(t), str)


@law("cache")
def test_a_cached_inverse_is_the_input_itself(case):
    t, x = case.build().with_cache(1), case.inputs((2,))
    if isinstance(t, (tr.IdentityTransform,)):
        return
    y = t(x)
    assert t.inv(y) is x
    assert t(x) is y
    assert t.with_cache(1) is t
    close(t.with_cache(0)(x), y, 1e-12)
    x.mul_(0.9)
    close(t(x), case.build()(x), 1e-12)


@law("graph")
def test_runs_under_make_fx(case):
    t, x = case.build().with_cache(1), case.inputs((2,))

    def run(x):
        y = t(x)
        log_det = 0 if "jacobian" in case.skips else t.log_abs_det_jacobian(x, y).sum()
        return y, t.inv(y) + 0 * log_det

    graph = make_fx(run)(x)
    other = case.inputs((5,))[3:]
    for got, expected in zip(graph(other), run(other), strict=True):
        close(got, expected, 1e-12)


@law("vmap")
def test_vectorises(case):
    t, x = case.build().with_cache(1), case.inputs((3,))

    def run(x):
        y = t(x)
        return (y, t.inv(y)) if "jacobian" in case.skips else (y, t.inv(y), t.log_abs_det_jacobian(x, y))

    for got, expected in zip(torch.vmap(run)(x), run(x), strict=True):
        close(got, expected, 1e-10)


@pytest.mark.parametrize("case", [c for c in CASES if "graph" not in c.skips], ids=lambda case: case.name)
def test_shapes_on_the_meta_device(case):
    if case.params or isinstance(case.build(), torch.nn.Module):
        return
    t, x = case.build(), case.inputs((2,))
    y = t(x.to("meta"))
    assert y.is_meta and y.shape == t(x).shape


@rows
def test_learnable_parameters_are_found(case):
    t = case.build()
    if not isinstance(t, torch.nn.Module):
        return
    x = case.inputs((3,))
    y = t(x)
    loss = y.sum() if not y.is_complex() else y.real.sum()
    if "jacobian" not in case.skips:
        loss = loss + t.log_abs_det_jacobian(x, y).sum()
    gradients = torch.autograd.grad(loss, list(t.parameters()), allow_unused=True)
    assert gradients and any(g is not None and g.abs().sum() > 0 for g in gradients)
    file = io.BytesIO()
    torch.save(t.state_dict(), file)
    file.seek(0)
    case.build().load_state_dict(torch.load(file, weights_only=True))


class TestCache:
    def test_a_changed_parameter_is_noticed(self):
        t, x = Scale(), torch.tensor([1.0, 2.0])
        y = t(x)
        with torch.no_grad():
            t.log_scale += 1
        torch.testing.assert_close(t(x), x * t.log_scale.exp())
        torch.testing.assert_close(t.inv(y), y * (-t.log_scale).exp())

    @pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}, {"foreach": False}])
    def test_a_step_of_an_optimiser_is_noticed(self, options):
        t, x = Scale(), torch.tensor([1.0, 2.0])
        y = t(x)
        y.sum().backward()
        torch.optim.Adam(t.parameters(), lr=0.1, **options).step()
        torch.testing.assert_close(t(x), x * t.log_scale.exp())
        assert t.inv(y) is not x

    def test_a_replaced_parameter_is_noticed(self):
        t, x = Scale(), torch.tensor([1.0, 2.0])
        t(x)
        t.log_scale = torch.nn.Parameter(torch.tensor(2.0))
        torch.testing.assert_close(t(x), x * t.log_scale.exp())
        t.log_scale.data = torch.tensor(3.0)
        torch.testing.assert_close(t(x), x * t.log_scale.exp())
        got = torch.func.functional_call(t, {"log_scale": torch.tensor(0.0)}, (x,))
        torch.testing.assert_close(got, x)

    def test_a_replaced_attribute_is_noticed(self):
        t, x = tr.AffineTransform(0.0, 2.0, cache_size=1), torch.tensor([1.0, 2.0])
        t(x)
        t.scale = 3.0
        torch.testing.assert_close(t(x), 3 * x)

    def test_a_change_inside_an_attribute_is_noticed(self):
        scale = torch.tensor([2.0, 3.0])
        t, x = tr.AffineTransform(0.0, scale, cache_size=1), torch.tensor([1.0, 2.0])
        t(x)
        scale.fill_(5.0)
        torch.testing.assert_close(t(x), 5 * x)

    @pytest.mark.parametrize("which", ["x", "y"])
    def test_an_input_changed_in_place_is_noticed(self, which):
        t, x = tr.ExpTransform(cache_size=1), torch.tensor([1.0, 2.0])
        y = t(x)
        (x if which == "x" else y)[0] = 7.0
        torch.testing.assert_close(t(x), x.exp())
        torch.testing.assert_close(t.inv(y), y.log())

    def test_a_draw_without_gradients_is_inverted_anew_where_gradients_are_wanted(self):
        t = Scale()
        with torch.no_grad():
            y = t(torch.tensor([1.0, 2.0]))
        x = t.inv(y)
        (got,) = torch.autograd.grad(x.sum(), [t.log_scale])
        torch.testing.assert_close(got, -x.sum().detach())

    def test_a_draw_with_gradients_is_not_handed_out_where_none_are_wanted(self):
        t, x = Scale(), torch.tensor([1.0, 2.0])
        y = t(x)
        assert y.requires_grad
        with torch.no_grad():
            assert not t.log_abs_det_jacobian(x, y).requires_grad
            assert not t(x).requires_grad

    def test_an_output_made_a_leaf_is_inverted_anew(self):
        t = tr.ExpTransform(cache_size=1)
        y = t(torch.tensor([1.0, 2.0])).requires_grad_()
        (got,) = torch.autograd.grad(t.inv(y).sum(), [y])
        torch.testing.assert_close(got, 1 / y.detach())

    def test_nothing_is_kept_alive(self):
        t = Scale()
        x = torch.randn(3, requires_grad=True)
        y = t(x)
        seen = weakref.ref(x), weakref.ref(y)
        del x, y
        gc.collect()
        assert [ref() for ref in seen] == [None, None]
        y = t.inv(torch.randn(3))
        seen = weakref.ref(y)
        del y
        assert seen() is None

    def test_a_dropped_transform_goes_at_once(self):
        t = tr.ExpTransform(cache_size=1)
        y = t(torch.randn(3))
        seen = weakref.ref(t)
        del t
        gc.collect()
        assert seen() is None and y.shape == (3,)

    def test_several_pairs(self):
        t = tr.ExpTransform(cache_size=3)
        xs = [torch.randn(2) for _ in range(4)]
        ys = [t(x) for x in xs]
        assert all(t.inv(y) is x for x, y in zip(xs[1:], ys[1:], strict=True))
        assert t.inv(ys[0]) is not xs[0]

    def test_threads_do_not_disturb_each_other(self):
        t, failures = Scale(), []

        def work(seed):
            generator = torch.Generator().manual_seed(seed)
            for _ in range(200):
                x = torch.randn(3, generator=generator)
                y = t(x)
                if t.inv(y) is not x or not torch.equal(t(x), x * t.log_scale.exp()):
                    failures.append(seed)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        del thread, threads
        gc.collect()
        assert t._cache is None or len(t._cache.slots) <= 1

    def test_traces_do_not_see_what_was_made_outside(self):
        t, x = Scale(), torch.tensor([1.0, 2.0])
        y = t(x)
        graph = make_fx(lambda one: t(x) + one)(torch.zeros(2))
        with torch.no_grad():
            t.log_scale += 1
        torch.testing.assert_close(graph(torch.zeros(2)), t(x))
        torch.testing.assert_close(t.inv(y), y * (-t.log_scale).exp())

    def test_inside_one_trace_the_inverse_is_free(self):
        t = Scale()
        graph = make_fx(lambda x: t.inv(t(x)))(torch.tensor([1.0, 2.0]))
        assert sum("mul" in str(node.target) for node in graph.graph.nodes) == 1

    def test_gradients_and_batches_of_functorch(self):
        t, x = Scale(), torch.tensor([1.0, 2.0])

        def loss(log_scale, x):
            y = torch.func.functional_call(t, {"log_scale": log_scale}, (x,))
            return (y + t.inv(y)).sum()

        got = torch.func.grad(loss)(torch.tensor(0.5), x)
        inverse = (-t.log_scale).exp().detach()
        torch.testing.assert_close(got, (x * 0.5**0 * torch.tensor(0.5).exp()).sum() * (1 + inverse))
        scales = torch.tensor([0.0, 1.0])
        batch = torch.vmap(lambda s: torch.func.functional_call(t, {"log_scale": s}, (x,)))(scales)
        torch.testing.assert_close(batch, x * scales.exp()[:, None])
        assert t(x).shape == x.shape

    def test_inference_tensors_are_not_remembered(self):
        t = tr.ExpTransform(cache_size=1)
        with torch.inference_mode():
            x = torch.ones(2)
            y = t(x)
            x.zero_()
            torch.testing.assert_close(t.inv(y), torch.ones(2))

    def test_compiles_in_one_graph(self):
        t = tr.ComposeTransform([Scale(), tr.TanhTransform()])

        def run(x):
            y = t(x)
            return t.inv(y) + t.log_abs_det_jacobian(x, y)

        x = torch.randn(3)
        torch.testing.assert_close(torch.compile(run, backend="eager", fullgraph=True)(x), run(x))

    def test_a_map_without_inverse_says_so(self):
        class Forward(tr.Transform):
            domain = codomain = constraints.real

            def _call(self, x):
                return x + x.sin()

        t = Forward(cache_size=1)
        x = torch.randn(2)
        assert t.inv(t(x)) is x
        with pytest.raises(NotImplementedError, match="Forward has no inverse in closed form"):
            t.inv(torch.randn(2))


class TestConditional:
    def test_a_constant_family(self):
        family = tr.ConstantConditionalTransform(tr.ExpTransform())
        context = torch.zeros(2)
        assert family.condition(context) == tr.ExpTransform()
        assert family.inv.condition(context) == tr.ExpTransform().inv
        assert family.inv.inv is family

    def test_a_chain(self):
        class Shift(tr.ConditionalTransformModule):
            domain = codomain = constraints.real
            bijective = True

            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.tensor(2.0))

            def condition(self, context):
                return tr.AffineTransform(self.weight * context, 1.0)

        chain = tr.ConditionalComposeTransformModule([Shift(), Scale(), tr.ExpTransform()])
        assert len(list(chain.parameters())) == 2 == len(list(chain.inv.parameters()))
        t, x = chain.condition(torch.tensor(3.0)), torch.tensor(0.5)
        torch.testing.assert_close(t(x), ((x + 6) * torch.tensor(0.3).exp()).exp())
        torch.testing.assert_close(chain.inv.condition(torch.tensor(3.0))(t(x)), x)
        assert chain.codomain is constraints.positive
        assert isinstance(t, torch.nn.Module)


class TestValues:
    """Where a formula is known from elsewhere."""

    def test_the_cosine_transform_is_scipys(self):
        fft = pytest.importorskip("scipy.fft")
        for size in (1, 2, 5, 8):
            x = torch.randn(3, size, generator=torch.Generator().manual_seed(size))
            torch.testing.assert_close(dct(x), torch.from_numpy(fft.dct(x.numpy(), norm="ortho")))

    def test_the_haar_transform_is_orthogonal_and_coarse_first(self):
        for size in range(1, 10):
            matrix = tr.HaarTransform()(torch.eye(size))
            torch.testing.assert_close(matrix @ matrix.T, torch.eye(size))
        constant = tr.HaarTransform()(torch.ones(8))
        torch.testing.assert_close(constant, torch.tensor([8.0**0.5] + [0.0] * 7))

    def test_tails_are_exact(self):
        x = torch.tensor([-700.0, -40.0, -5.0])
        torch.testing.assert_close(tr.SoftplusTransform().log_abs_det_jacobian(x, x), x - x.exp().log1p())
        torch.testing.assert_close(
            tr.TanhTransform().log_abs_det_jacobian(x, x)[:2], x[:2] * 2 + 2 * torch.tensor(2.0).log()
        )
        t = tr.SigmoidTransform()
        torch.testing.assert_close(t.inv(t(x)), x)
        assert t.inv(torch.tensor([0.0, 1.0])).isfinite().all()
        y = tr.StickBreakingTransform()(torch.tensor([-40.0, 30.0, 40.0]))
        torch.testing.assert_close(tr.StickBreakingTransform().inv(y), torch.tensor([-40.0, 30.0, 40.0]))

    @pytest.mark.parametrize("x", [19.9, 20.1, 25.0])
    def test_softplus_has_no_jump(self, x):
        got = tr.SoftplusTransform()(torch.tensor(x))
        assert got.item() == pytest.approx(x + 2.718281828459045**-x, abs=1e-14)

    def test_stick_breaking_is_torchs(self):
        x = torch.randn(4, 3)
        torch.testing.assert_close(tr.StickBreakingTransform()(x), torch.distributions.StickBreakingTransform()(x))

    def test_partial_correlations_are_torchs(self):
        x = torch.randn(4, 6)
        torch.testing.assert_close(tr.CorrCholeskyTransform()(x), torch.distributions.CorrCholeskyTransform()(x))

    def test_cutpoints(self):
        probs = torch.tensor([0.1, 0.2, 0.3, 0.4])
        cutpoints = tr.SimplexToOrderedTransform(0.5)(probs)
        torch.testing.assert_close((cutpoints - 0.5).sigmoid(), probs.cumsum(-1)[:-1])

    def test_the_spectrum_of_a_circulant_matrix(self):
        row = tr.CirculantTransform(5)(torch.tensor([0.3, -1.0, 0.5]))
        matrix = torch.stack([row.roll(i) for i in range(5)])
        expected = torch.tensor([0.3, -1.0, -1.0, 0.5, 0.5]).exp().sort().values
        torch.testing.assert_close(torch.linalg.eigvalsh(matrix), expected)

    def test_orders(self):
        for t in (tr.OrderedTransform(), tr.PositiveOrderedTransform()):
            y = t(torch.tensor([30.0, -30.0, 0.0, -30.0]))
            assert t.codomain.check(y)

    def test_signs(self):
        assert tr.ExpTransform().sign == 1 and tr.LessThanTransform(0.0).sign == -1
        assert tr.AffineTransform(0.0, -2.0).sign == -1 == tr.PowerTransform(-1.0).sign
        chain = tr.ComposeTransform([tr.ExpTransform(), tr.AffineTransform(0.0, -2.0)])
        assert chain.sign == -1 == chain.inv.sign
        with pytest.raises(NotImplementedError, match="not known to be monotone"):
            _ = tr.StickBreakingTransform().sign


def test_torch_code_accepts_ours():
    base = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
    d = torch.distributions.TransformedDistribution(base, [tr.AffineTransform(1.0, 2.0), tr.ExpTransform(cache_size=1)])
    x = d.rsample()
    expected = torch.distributions.LogNormal(1.0, 2.0).log_prob(x)
    torch.testing.assert_close(d.log_prob(x), expected)
    for name in ("ExpTransform", "ComposeTransform", "AffineTransform", "CatTransform", "StickBreakingTransform"):
        assert issubclass(getattr(tr, name), getattr(torch.distributions.transforms, name))


def test_torchs_own_take_part_in_our_chains():
    chain = tr.ComposeTransform(
        [torch.distributions.transforms.ExpTransform(), tr.AffineTransform(1.0, 2.0)], cache_size=1
    )
    x = torch.randn(3)
    y = chain(x)
    torch.testing.assert_close(chain.inv(y), x)
    assert chain.log_abs_det_jacobian(x, y).shape == (3,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tr.ExpTransform(cache_size=-1), "cache_size"),
        (lambda: tr.LowerCholeskyTransform(packed=True)(torch.zeros(4)), "fills no triangle"),
        (lambda: tr.CorrCholeskyTransform()(torch.zeros(2)), "fills no triangle"),
        (lambda: tr.ReshapeTransform((2, 3), (5,)), "different numbers of entries"),
        (lambda: tr.ReshapeTransform((2, 3), (6,))(torch.zeros(2, 2)), "last dims must be"),
        (lambda: tr.PositivePowerTransform(-1.0), "must be positive"),
        (lambda: tr.DiscreteCosineTransform(dim=0), "negative integer"),
        (lambda: tr.permute(3, [0, 0, 1]), "once"),
        (lambda: tr.CatTransform([tr.ExpTransform()], -1, [2])(torch.zeros(3)), "must have the size 2"),
        (lambda: tr.StackTransform([tr.ExpTransform()], -1)(torch.zeros(3)), "must have the size 1"),
        (lambda: tr.CirculantTransform().inv(torch.zeros(5)), "odd length"),
        (lambda: tr.LowerCholeskyAffine(torch.zeros(2), torch.eye(3)), "size 3"),
    ],
)
def test_errors_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_factories():
    assert tr.elu() == tr.ELUTransform() and tr.leaky_relu() == tr.LeakyReLUTransform()
    assert sorted(tr.permute(4).permutation.tolist()) == [0, 1, 2, 3]
    assert tr.permute((5, 3), dim=-2).permutation.shape == (5,)
    x = torch.randn(2)
    assert tr.identity_transform(x) is x
    assert dist.transforms is tr
